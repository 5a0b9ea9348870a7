"""Readers of data sets: one function per format, all yielding the same ``Dataset``; no voxels are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.data.archive import is_archive
from pipeline.data.case import Dataset, TaskKind
from pipeline.data.labels import with_regions
from pipeline.data.missing import settle_missing
from pipeline.data.readers.bids import read_bids
from pipeline.data.readers.class_folders import read_class_folders
from pipeline.data.readers.decathlon import read_decathlon
from pipeline.data.readers.dicom import read_dicom
from pipeline.data.readers.files import read_files
from pipeline.data.readers.medmnist import read_medmnist
from pipeline.data.readers.nnunet import read_nnunet
from pipeline.data.readers.phantom import read_phantom
from pipeline.data.readers.sources import listed, nearest
from pipeline.data.readers.table import read_table
from pipeline.data.unpacked import unpacked
from pipeline.errors import UserError

__all__ = [
    "FORMATS",
    "open_dataset",
    "read_bids",
    "read_class_folders",
    "read_decathlon",
    "read_dicom",
    "read_files",
    "read_medmnist",
    "read_nnunet",
    "read_phantom",
    "read_table",
]

EVERYWHERE = ("format", "regions", "ignore", "missing")  # keys that hold for every format and are settled here
CHECKED = ("allow_outside",)  # keys that the integrity check reads whatever the format

FORMATS: Mapping[str, Callable[..., Dataset]] = {
    "bids": read_bids,
    "class_folders": read_class_folders,
    "decathlon": read_decathlon,
    "dicom": read_dicom,
    "files": read_files,
    "medmnist": read_medmnist,
    "nnunet": read_nnunet,
    "phantom_lung": read_phantom,
    "table": read_table,
}


def open_dataset(
    settings: Mapping[str, Any],
    *,
    task_kind: TaskKind,
    cache: Path | None = None,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The data set that ``settings`` (the keys of ``data:``) describe.

    Keys that the format does not know must be unset (None or False). ``root`` may be an archive (.zip, .tar, .tar.gz),
    which is unpacked once into the cache. ``cache``: folder for generated and unpacked data;
    ``workers`` and ``report``: for what takes long (see read_phantom). Raises UserError.
    """
    name = str(settings.get("format"))
    if name not in FORMATS:
        near = nearest(name, FORMATS)
        raise UserError(
            f"data.format={name}: unknown format",
            f"did you mean {near[0]}?" if near else f"one of {', '.join(FORMATS)}",
        )
    root = settings.get("root")
    if root is not None and is_archive(archive := Path(root).expanduser().absolute()) and archive.is_file():
        settings = {**settings, "root": unpacked(archive, cache)}
    read = FORMATS[name]
    known = inspect.signature(read).parameters
    foreign = [
        key
        for key, value in settings.items()
        if key not in (*EVERYWHERE, *CHECKED) and key not in known and value not in (None, False)
    ]
    if foreign:
        raise UserError(
            f"data.{foreign[0]} does not apply to data.format={name}", f"that format takes {listed(sorted(known))}"
        )
    offered = {**settings, "task_kind": task_kind, "cache": cache, "workers": workers, "report": report}
    arguments = {key: value for key, value in offered.items() if key in known and key not in EVERYWHERE}
    dataset = read(**arguments)
    if settings.get("regions") or settings.get("ignore") is not None:
        labels = with_regions(dataset.labels, settings.get("regions"), settings.get("ignore"))
        dataset = replace(dataset, labels=labels)
    dataset = settle_missing(dataset, settings.get("missing"))
    if not dataset.cases:
        raise UserError(f"{dataset.index or dataset.root}: no case is left, the data set is empty")
    return dataset
