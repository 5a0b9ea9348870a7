"""Files that cannot be read, lie elsewhere, or stand for two cases."""

from __future__ import annotations

import stat
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

from pipeline.data.case import Case, Source
from pipeline.data.image_io import files_of
from pipeline.data.image_io.numpy_file import holds_image_and_label
from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View

INWARDS = "copy the file into the folder, or set data.allow_outside=true"
AGAIN = "restore the file, or take the case out of the list"


def unreadable(view: View) -> Iterator[Fault]:
    """A file is missing, truncated, damaged, or of a kind that is not supported."""
    for case in view.dataset.cases:
        for source, _, reading in view.sources(case):
            if reading.fault is not None:
                remedy = "; ".join(reading.remedies) or _like(source.path) or AGAIN
                yield view.fault("error", case, source, reading.fault, remedy, "unreadable")
        if view.dataset.task == "segmentation" and case.label is None:
            first = next(iter(case.images.values()))
            remedy = "add the mask, or take the case out of the list"
            yield view.fault("error", case, first, f"case {case.case_id} has no label mask", remedy, "no_mask")


def _like(path: Path) -> str | None:
    """What to do about a missing file whose folder has one of nearly its name."""
    if path.is_symlink() or path.exists() or not path.parent.is_dir():
        return None
    same = {_folded(name): name for name in _names(path.parent)}.get(_folded(path.name))
    if same is None:
        return None
    how = "upper and lower case" if same.casefold() == path.name.casefold() else "the Unicode form of the name"
    return f"the folder has {same}: only {how} differs, write it alike"


@lru_cache(maxsize=8)
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in folder.iterdir())


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def outside(view: View) -> Iterator[Fault]:
    """A link leads out of the data set's folder: a data set must not name foreign files unless that is allowed.

    That holds for the file with the voxels of an .mhd or .nrrd and for the list of the cases too.
    """
    if view.settings.allow_outside:
        return
    root = view.dataset.root.resolve()

    @cache
    def folder(path: Path) -> Path:
        return path.resolve()

    @cache
    def target(path: Path) -> Path:
        return path.resolve() if stat.S_ISLNK(path.lstat().st_mode) else folder(path.parent) / path.name

    for case in view.dataset.cases:
        for source, _, reading in view.sources(case):
            for path in files_of(source.path) if reading.fault is None else ():
                if not target(path).is_relative_to(root):
                    fault = f"links to {target(path)}, outside the data set's folder"
                    yield view.fault("error", case, source, fault, INWARDS, "outside")
    index = view.dataset.index
    if index is not None and index.is_symlink() and not index.resolve().is_relative_to(root):
        fault = f"the list of the cases links to {index.resolve()}, outside the data set's folder"
        yield view.dataset_fault("error", fault, INWARDS, "outside")


def reused(view: View) -> Iterator[Fault]:
    """One file serves as image and mask (but for an .npz that holds both), or as the mask of several cases."""
    users: dict[Source, Case] = {}
    for case in view.dataset.cases:
        if case.label is None:
            continue
        if case.label in case.images.values():
            if holds_image_and_label(case.label.path):
                continue
            fault = "the label mask is the same file as the image"
            yield view.fault("error", case, case.label, fault, "name the mask's own file", "label_is_image")
        elif (mask := view.mask(case)) and mask.sha256 in {reading.sha256 for _, reading in view.images(case)}:
            fault = "the label mask is a copy of the image"
            yield view.fault("error", case, case.label, fault, "restore the mask", "label_is_image")
        other = users.setdefault(case.label, case)
        if other is not case:
            fault = f"the same label mask serves cases {other.case_id} and {case.case_id}"
            yield view.fault("error", case, case.label, fault, "give each case its own mask", "label_reused")
