"""Files that cannot be read, lie elsewhere, or stand for two cases."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.data.case import ArraySource, Case, Source
from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View

AGAIN = "restore the file, or take the case out of the list"


def unreadable(view: View) -> Iterator[Fault]:
    """A file is missing, truncated, damaged, or of a kind that is not supported."""
    for case in view.dataset.cases:
        for source, _, reading in view.sources(case):
            if reading.fault is not None:
                yield view.fault(
                    "error", case, source, reading.fault, "; ".join(reading.remedies) or AGAIN, "unreadable"
                )
        if view.dataset.task == "segmentation" and case.label is None:
            first = next(iter(case.images.values()))
            remedy = "add the mask, or take the case out of the list"
            yield view.fault("error", case, first, f"case {case.case_id} has no label mask", remedy, "no_mask")


def outside(view: View) -> Iterator[Fault]:
    """A link leads out of the data set's folder: the data may change, or be missing elsewhere."""
    root = view.dataset.root.resolve()

    @cache
    def folder(path: Path) -> Path:
        return path.resolve()

    @cache
    def target(path: Path) -> Path:
        return path.resolve() if stat.S_ISLNK(path.lstat().st_mode) else folder(path.parent) / path.name

    for case in view.dataset.cases:
        for source, _, reading in view.sources(case):
            if reading.fault is None and not target(source.path).is_relative_to(root):
                fault = f"links to {target(source.path)}, outside the data set's folder"
                yield view.fault("warning", case, source, fault, "copy the file into the folder", "outside")


def reused(view: View) -> Iterator[Fault]:
    """One file serves as image and mask, or as the mask of several cases."""
    users: dict[Source, Case] = {}
    for case in view.dataset.cases:
        if case.label is None:
            continue
        if case.label in case.images.values():
            fault = "the label mask is the same file as the image"
            yield view.fault("error", case, case.label, fault, "name the mask's own file", "label_is_image")
        other = users.setdefault(case.label, case)
        if other is not case:
            fault = f"the same label mask serves cases {other.case_id} and {case.case_id}"
            yield view.fault("error", case, case.label, fault, "give each case its own mask", "label_reused")


def duplicates(view: View) -> list[list[tuple[Case, Source]]]:
    """Groups of images with identical content: same bytes of a file, or same voxels inside .npz arrays."""
    groups: dict[str, list[tuple[Case, Source]]] = defaultdict(list)
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            groups[reading.content or reading.sha256].append((case, source))
    return [group for group in groups.values() if len({case.case_id for case, _ in group}) > 1]


def duplicate_images(view: View) -> Iterator[Fault]:
    """Two cases are one image: under different patients it leaks from training to validation.

    Images inside an .npz name no patients, so those are kept in one fold instead of being refused.
    """
    for group in duplicates(view):
        (first, origin), *rest = group
        for case, source in rest:
            named = f"identical to {view.shown(origin)} (duplicate of case {first.case_id}"
            if isinstance(source, ArraySource):
                splits = f", split {first.split} and {case.split}" if first.split != case.split else ""
                remedy = "take one of them out; until then both stay in one fold"
                yield view.fault("warning", case, source, f"{named}{splits})", remedy, "duplicate")
            elif case.patient_id != first.patient_id:
                fault = f"{named}, but of another patient: {first.patient_id} and {case.patient_id})"
                yield view.fault("error", case, source, fault, "take one out, or give both one patient_id", "duplicate")
            elif case is not first:
                yield view.fault("warning", case, source, f"{named})", "take one of them out", "duplicate")


def duplicate_masks(view: View) -> Iterator[Fault]:
    """Two masks with some foreground are identical although their images are not."""
    groups: dict[str, list[tuple[Case, Source]]] = defaultdict(list)
    for case, source, reading in view.masks:
        if len(reading.values or {}) > 1:
            groups[reading.sha256].append((case, source))
    for (first, origin), *rest in groups.values():
        for case, source in rest:
            images = [{reading.sha256 for _, reading in view.images(one)} for one in (first, case)]
            if source != origin and images[0] != images[1]:
                fault = f"identical to the mask of case {first.case_id}, while the images differ"
                yield view.fault("warning", case, source, fault, "look at both masks", "duplicate_mask")
