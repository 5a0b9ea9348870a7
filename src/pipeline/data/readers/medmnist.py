"""MedMNIST files: an .npz with <split>_images and <split>_labels (Yang et al. 2023, Sci Data 10:41)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.case import ArraySource, Case, Dataset, TaskKind
from pipeline.data.image_io.arrays import load_array, read_array, read_keys
from pipeline.data.readers.sources import listed, probe, require_file, require_root
from pipeline.data.readers.targets import keep_targets, name_targets
from pipeline.errors import UserError

SPLITS = ("train", "val", "test")


def read_medmnist(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind = "classification",
    targets: Sequence[str] | None = None,
    target_names: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    npz: str | None = None,
    splits: Sequence[str] | None = None,
) -> Dataset:
    """One case per image, named after its place such as train_00012; each is its own patient.

    ``npz``: file in ``root``; None: the only one there. ``splits``: parts of the file to use; None: all that it has.
    ``target_names``: value in the file -> class name. ``targets``: classes to keep, in order. Raises UserError.
    """
    if task_kind != "classification":
        raise UserError("data.format=medmnist has classes and no masks", "set task=classification")
    folder = require_root(root)
    path = require_file(folder, npz, "data.npz") if npz else _only_npz(folder)
    keys = read_keys(path)
    present = [split for split in SPLITS if f"{split}_images" in keys and f"{split}_labels" in keys]
    wanted = list(splits) if splits is not None else present
    missing = [split for split in wanted if split not in present]
    if missing or not wanted:
        raise UserError(f"{path}: has no split {listed(missing)} (data.splits)", f"it has {listed(present)}")

    cases: list[Case] = []
    for split in wanted:
        images = read_array(path, f"{split}_images")
        labels = load_array(path, f"{split}_labels")
        if labels.size != len(images) or labels.dtype.kind not in "biuf":
            raise UserError(
                f"{path}: {split}_labels of shape {labels.shape} for {len(images)} images; "
                "one whole number per image is supported"
            )
        if not len(images):
            raise UserError(f"{path}: {split}_images is empty (0 images)", "take the split out: data.splits=[...]")
        if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.rint(labels))).all():
            raise UserError(f"{path}: {split}_labels holds values that are no whole numbers")
        digits = max(5, len(str(len(images) - 1)))
        for index, value in enumerate(labels.ravel().tolist()):
            case_id = f"{split}_{index:0{digits}d}"
            source = ArraySource(path, f"{split}_images", index)
            cases.append(Case(case_id, case_id, {"image": source}, target=str(int(value)), split=split))
    cases, classes, notes = keep_targets(name_targets(cases, target_names, str(path)), targets, str(path))
    found_dims, channels = probe(cases)
    return Dataset(
        name=name or path.stem,
        root=folder,
        task="classification",
        cases=tuple(cases),
        modalities=("image",),
        labels=None,
        classes=classes,
        spatial_dims=spatial_dims or found_dims,
        notes=tuple(notes),
        channels=channels,
        index=path,
    )


def _only_npz(folder: Path) -> Path:
    found = sorted(folder.glob("*.npz"))
    if len(found) != 1:
        said = listed([path.name for path in found]) if found else "no .npz"
        raise UserError(f"{folder}: holds {said}", "name one with data.npz=FILE")
    return found[0]
