"""One scan that stands for several cases: the same bytes, the same voxels, or nearly the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.data.case import ArraySource, Case, Dataset, FileSource, Source
from pipeline.data.integrity.near import near_pairs
from pipeline.data.integrity.reading import Job, Reading
from pipeline.data.integrity.result import Fault, Severity
from pipeline.data.integrity.view import View

FOREGROUND = 64  # voxels of a mask from which they tell it from others in another file

Group = list[tuple[Case, Source]]


def alike(dataset: Dataset, readings: Mapping[Job, Sequence[Reading]]) -> list[Path]:
    """Image files that differ while their samples agree: whether their voxels do must be seen."""
    groups: dict[str, dict[Path, str]] = defaultdict(dict)
    for case in dataset.cases:
        for source in case.images.values():
            if isinstance(source, FileSource):
                reading = readings[Job.of(source, "image")][0]
                if reading.fault is None and reading.minimum < reading.maximum:
                    groups[reading.sample][source.path] = reading.sha256
    return [path for group in groups.values() if len(set(group.values())) > 1 for path in group]


def duplicates(view: View) -> list[Group]:
    """Groups of images with identical content: same bytes of a file, or same voxels."""
    groups: dict[str, Group] = defaultdict(list)
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            groups[view.content(source, reading)].append((case, source))
    return [group for group in groups.values() if len({case.case_id for case, _ in group}) > 1]


def duplicate_images(view: View) -> Iterator[Fault]:
    """Two cases are one image: under different patients it leaks from training to validation.

    Images inside an .npz name no patients, so those are kept in one fold instead of being refused.
    """
    for group in duplicates(view):
        (first, origin), *rest = group
        for case, source in rest:
            if case is first:
                continue
            contrary = first.target is not None and case.target is not None and first.target != case.target
            classes = f"; their classes contradict: {first.target} and {case.target}" if contrary else ""
            if source == origin:
                named = f"the same image file serves cases {first.case_id} and {case.case_id} (duplicate"
            elif view.sha256(source) == view.sha256(origin) or isinstance(source, ArraySource):
                named = f"identical to {view.shown(origin)} (duplicate of case {first.case_id}"
            else:
                turned = ", mirrored or turned" if view.turned(source, origin) else ""
                named = f"holds the same voxels as {view.shown(origin)}{turned} (duplicate of case {first.case_id}"
            if isinstance(source, ArraySource):
                splits = f", split {first.split} and {case.split}" if first.split != case.split else ""
                leaks = "take one of them out" + (
                    "" if view.settings.predefined else "; until then both stay in one fold"
                )
                rule = "two_splits" if splits else "duplicate"
                yield view.fault("warning", case, source, f"{named}{splits}){classes}", leaks, rule)
            elif case.patient_id != first.patient_id:
                fault = f"{named}, but of another patient: {first.patient_id} and {case.patient_id}){classes}"
                yield view.fault("error", case, source, fault, "take one out, or give both one patient_id", "duplicate")
            else:
                severity: Severity = "error" if contrary else "warning"
                yield view.fault(severity, case, source, f"{named}){classes}", "take one of them out", "duplicate")


def same_modalities(view: View) -> Iterator[Fault]:
    """Two modalities of a case, or two channels of its image, are one and the same."""
    for case in view.dataset.cases:
        known: dict[str, Source] = {}
        for source, reading in view.images(case):
            if reading.twins and reading.channels == view.dataset.channels:
                fault = f"channels {reading.twins[0]} and {reading.twins[1]} are identical"
                yield view.fault("warning", case, source, fault, "save the other channel", "same_modality")
            other = known.setdefault(view.content(source, reading), source)
            if other is not source:
                fault = f"identical to {other.name}, another modality of the same case (duplicate)"
                yield view.fault("warning", case, source, fault, "restore the image of this modality", "same_modality")


def near_duplicates(view: View) -> Iterator[Fault]:
    """Two 2D images of different patients look the same: one may be a copy in another size or compression."""
    limit = view.settings.near_duplicate_bits
    if limit is None:
        return
    found: dict[str, tuple[Case, Source, Reading]] = {}  # one image stands for all that are identical
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            if reading.picture:
                found.setdefault(view.content(source, reading), (case, source, reading))
    images = list(found.values())
    for one, other, bits in near_pairs([reading.picture for _, _, reading in images], limit):
        (first, origin, _), (case, source, _) = images[one], images[other]
        if case.patient_id == first.patient_id:
            continue
        splits = f", split {first.split} and {case.split}" if first.split != case.split else ""
        fault = (
            f"looks nearly the same as {view.shown(origin)} (case {first.case_id}{splits}; {bits} of 255 bits differ)"
        )
        remedy = "look at both; give them one patient_id if they are one picture"
        yield view.fault("warning", case, source, fault, remedy, "near_duplicate")


def duplicate_masks(view: View) -> Iterator[Fault]:
    """Two masks with some foreground are identical although their images are not."""
    groups: dict[str, Group] = defaultdict(list)
    for case, source, reading in view.masks:
        if len(reading.values or {}) > 1:
            groups[_drawn(reading)].append((case, source))
    for (first, origin), *rest in groups.values():
        for case, source in rest:
            images = [{view.content(*image) for image in view.images(one)} for one in (first, case)]
            if source != origin and images[0] != images[1]:
                fault = f"identical to the mask of case {first.case_id}, while the images differ"
                yield view.fault("warning", case, source, fault, "look at both masks", "duplicate_mask")


def _drawn(reading: Reading) -> str:
    """What two masks share that are one: the number of voxels of each value and a sample of them, or the same bytes."""
    counts = reading.values or {}
    if sum(counts.values()) - counts.get(0, 0) < FOREGROUND:
        return reading.sha256
    return f"{reading.shape} {counts} {reading.sample}"
