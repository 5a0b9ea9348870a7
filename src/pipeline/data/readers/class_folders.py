"""Images sorted into one folder per class, with or without folders train, val and test above them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.case import Case, Dataset, FileSource, TaskKind
from pipeline.data.image_io import SUFFIXES, stem_of
from pipeline.data.readers.sources import (
    listed,
    patient_finder,
    probe,
    raise_all,
    require_case_ids,
    require_root,
)
from pipeline.data.readers.targets import keep_targets, name_targets
from pipeline.errors import UserError

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def read_class_folders(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind = "classification",
    targets: Sequence[str] | None = None,
    target_names: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    patient_pattern: str | None = None,
    splits: Sequence[str] | None = None,
) -> Dataset:
    """One case per image of ``root/CLASS/...``, or of ``root/train|val|test/CLASS/...``, at any depth below its class.

    A case is named after its path: train/ill/a/7.png is train__ill__a__7. ``patient_pattern``: regular expression on
    the file name (without its ending) whose first group is the patient; None: each image is one. ``splits``: those to
    use; None: all. ``target_names``: folder -> class name, several may share one. ``targets``: classes to keep, in
    order. What is no image is left out with a note. Raises UserError.
    """
    if task_kind != "classification":
        raise UserError("data.format=class_folders has classes and no masks", "set task=classification")
    folder = require_root(root)
    places, notes = _class_folders(folder, splits)
    find_patient = patient_finder(patient_pattern)
    cases: list[Case] = []
    mistakes: list[UserError] = []
    ignored: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for split, place in places:
        for path in _files(place, ignored):
            if not path.name.lower().endswith(SUFFIXES):
                ignored["no image"] += 1
                continue
            held[place.name] += 1
            case_id = "__".join((*path.parent.relative_to(folder).parts, stem_of(path)))
            try:
                patient = find_patient(stem_of(path)) if patient_pattern is not None else case_id
            except UserError as error:
                mistakes.append(error)
                continue
            cases.append(Case(case_id, patient, {"image": FileSource(path)}, target=place.name, split=split))
    raise_all(mistakes)
    empty = sorted({place.name for _, place in places} - held.keys())
    if empty:
        raise UserError(
            f"{folder}: folders {listed(empty)} hold no image", f"take them out, or use names in {', '.join(SUFFIXES)}"
        )
    require_case_ids((case.case_id for case in cases), str(folder))
    cases, classes, dropped = keep_targets(name_targets(cases, target_names, str(folder)), targets, str(folder))
    notes += [f"{count} files are left out: {why}" for why, count in sorted(ignored.items()) if count] + dropped
    found_dims, channels = probe(cases)
    return Dataset(
        name=name or folder.name,
        root=folder,
        task="classification",
        cases=tuple(cases),
        modalities=("image",),
        labels=None,
        classes=classes,
        spatial_dims=spatial_dims or found_dims,
        notes=tuple(notes),
        channels=channels,
    )


def _class_folders(folder: Path, wanted: Sequence[str] | None) -> tuple[list[tuple[str | None, Path]], list[str]]:
    """The folders of the classes with their split (None where there are no splits), and notes."""
    tops, notes = _folders(folder)
    by_split: dict[str, list[Path]] = {}
    for top in tops:
        if top.name.casefold() in SPLITS:
            by_split.setdefault(SPLITS[top.name.casefold()], []).append(top)
    if not by_split or sum(map(len, by_split.values())) < len(tops):
        if wanted is not None:
            raise UserError(
                f"{folder}: is not made of folders train, val and test (data.splits); it has {listed(_names(tops))}",
                "set data.splits=null",
            )
        if by_split:
            raise UserError(
                f"{folder}: holds folders of splits beside others: {listed(_names(tops))}",
                "set data.root to the folder whose folders are the classes, or move the others away",
            )
        if len(tops) < 2:
            raise UserError(f"{folder}: holds {len(tops)} folders of classes; two at least are needed")
        return [(None, top) for top in tops], notes
    missing = [split for split in wanted or () if split not in by_split]
    if missing:
        raise UserError(f"{folder}: has no split {listed(missing)} (data.splits)", f"it has {listed(list(by_split))}")
    places: list[tuple[str | None, Path]] = []
    for split in wanted if wanted is not None else by_split:
        for top in by_split[split]:
            classes, more = _folders(top)
            places += [(split, place) for place in classes]
            notes += more
    if len({place.name for _, place in places}) < 2:
        raise UserError(f"{folder}: holds fewer than two folders of classes below {listed(_names(tops))}")
    return places, notes


def _folders(folder: Path) -> tuple[list[Path], list[str]]:
    """The visible folders inside one, in order, and a note on the images beside them."""
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith((".", "__MACOSX"))]
    stray = [entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()]
    notes = [f"{len(stray)} images lie in no folder of a class and are left out: {listed(stray)}"] if stray else []
    return [entry for entry in entries if entry.is_dir()], notes


def _files(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """Every visible file below a folder, in order; links to folders are not followed, they may be loops."""
    for place, folders, files in os.walk(folder):
        linked = [name for name in folders if Path(place, name).is_symlink()]
        ignored["behind a link to a folder"] += len(linked)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(place, name)


def _names(folders: Sequence[Path]) -> list[str]:
    return [folder.name for folder in folders]
