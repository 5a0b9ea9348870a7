"""Preprocessed cases on disk, memory-mapped: computed once, shared by folds, runs and processes."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pipeline.data.case import ArraySource, Case
from pipeline.data.preprocessing import Prepared, Preprocessing

LAYOUT = 2  # of an entry's files; part of every key
LIBRARIES = ("monai", "torch", "numpy", "nibabel")  # whose version may change what preprocessing computes


class Store:
    """A folder of entries, one per case and way of preprocessing.

    An entry's name is a hash of the bytes of the case's files (``digests``: case to file to sha256), the preprocessing
    configuration (``recipe``) and the versions of the libraries, so a changed file or transform never meets an old
    entry. An entry appears whole by a rename, so two processes may write at once and a killed one leaves nothing; one
    that a power failure cut short is found when it is opened and written again. Cases that already stand together in
    one array file (:class:`ArraySource`) are small: they are kept in memory, thousands of folders would be slower.
    """

    def __init__(
        self, folder: Path, preprocessing: Preprocessing, recipe: str, digests: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        self.recipe = recipe
        self.digests = digests
        self._opened: dict[str, Prepared] = {}

    def key(self, case: Case) -> str:
        """The name of the case's entry."""
        identity = {
            "layout": LAYOUT,
            "recipe": self.recipe,
            "preprocessing": self.preprocessing.identity(),
            "modalities": list(case.images),
            "files": sorted(self.digests[case.case_id].items()),
            "libraries": {name: version(name) for name in LIBRARIES},
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]

    def prepare(self, cases: Sequence[Case], *, workers: int, report: Callable[[int, int], None] | None = None) -> int:
        """Write the entries that are missing; returns how many. ``report`` is called with (done, total)."""
        missing = [case for case in cases if case.case_id not in self._opened and not self._entry(case).is_dir()]
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for done, _ in enumerate(pool.map(self._write, missing), start=1):
                if report is not None:
                    report(done, len(missing))
        return len(missing)

    def __getitem__(self, case: Case) -> Prepared:
        """The prepared case; its arrays are memory-mapped, so a patch reads only its own bytes."""
        if case.case_id not in self._opened:
            entry = self._entry(case)
            try:
                self._opened[case.case_id] = _read(entry)
            except (OSError, ValueError, KeyError):  # absent, or cut short
                shutil.rmtree(entry, ignore_errors=True)
                self._write(case)
                if case.case_id not in self._opened:
                    self._opened[case.case_id] = _read(entry)
        return self._opened[case.case_id]

    def _entry(self, case: Case) -> Path:
        key = self.key(case)
        return self.folder / key[:2] / key

    def _write(self, case: Case) -> None:
        prepared = self.preprocessing(case)
        if any(isinstance(source, ArraySource) for source in case.images.values()):
            self._opened[case.case_id] = prepared
            return
        entry = self._entry(case)
        partial = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        try:
            np.save(partial / "image.npy", prepared.image)
            if prepared.label is not None:
                np.save(partial / "label.npy", prepared.label)
            for index, voxels in prepared.centres.items():
                np.save(partial / f"centres_{index}.npy", voxels)
            geometry = {
                "case_id": case.case_id,
                "affine": prepared.affine.tolist(),
                "native_shape": list(prepared.native_shape),
                "native_affine": prepared.native_affine.tolist(),
                "counts": {str(index): count for index, count in prepared.counts.items()},
                "absent": list(prepared.absent),
            }
            (partial / "geometry.json").write_text(json.dumps(geometry), encoding="utf-8")
            partial.rename(entry)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            if not entry.is_dir():  # otherwise another process was first
                raise
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _read(entry: Path) -> Prepared:
    geometry = json.loads((entry / "geometry.json").read_text(encoding="utf-8"))
    label = entry / "label.npy"
    return Prepared(
        image=np.load(entry / "image.npy", mmap_mode="r"),
        label=np.load(label, mmap_mode="r") if label.exists() else None,
        affine=np.array(geometry["affine"]),
        native_shape=tuple(geometry["native_shape"]),
        native_affine=np.array(geometry["native_affine"]),
        centres={int(index): np.load(entry / f"centres_{index}.npy") for index in geometry["counts"]},
        counts={int(index): count for index, count in geometry["counts"].items()},
        absent=tuple(geometry["absent"]),
    )
