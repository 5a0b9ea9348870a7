"""NIfTI files and tables: whole or not there at all, and the same bytes from the same voxels."""

from __future__ import annotations

import csv
import gzip
import io
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

COMPRESSION = 1  # gzip level: voxels of scans hardly shrink further, and higher levels take many times longer


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write voxels (i, j, k) with their affine (RAS+, mm) to a .nii.gz; the header holds nothing else."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    # no file name and no time in the gzip header
    with _partial(path) as file, gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as stream:
        image.to_stream(stream)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with _partial(path) as file:
        file.write(text.getvalue().encode("utf-8", "replace"))


def sweep(folder: Path) -> None:
    """Delete what an import that was killed left half written."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


@contextmanager
def _partial(path: Path) -> Iterator[io.BufferedWriter]:
    """A file under a name of its own that takes its place when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
