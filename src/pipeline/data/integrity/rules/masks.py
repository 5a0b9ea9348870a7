"""Masks: values that mean nothing, foreground that is not there."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.summary import MOST_VALUES
from pipeline.data.integrity.view import View, foreground_voxels

SHOWN = 6
LOSSY = (".jpg", ".jpeg")


def values(view: View) -> Iterator[Fault]:
    """Mask values that are no whole numbers, or not declared."""
    labels = view.dataset.labels
    if labels is None:
        return
    declared = ", ".join(map(str, labels.values))
    for case, source, reading in view.masks:
        if reading.nonfinite:
            fault = f"{reading.nonfinite:,} voxels of the label mask are not finite (NaN or infinite)"
            yield view.fault("error", case, source, fault, "write the mask again in whole numbers", "label_value")
        if reading.fraction is not None:
            fault = f"label value {reading.fraction:g} is no integer: was the mask interpolated?"
            remedy = "resample masks with nearest neighbour"
            yield view.fault("error", case, source, fault, remedy, "label_value")
            continue
        unknown = [value for value in reading.values or {} if value not in (*labels.values, labels.ignore)]
        if unknown:
            many = f" and more (at least {len(unknown)})" if len(unknown) > SHOWN else ""
            negative = " (negative)" if min(unknown) < 0 else ""
            fault = f"label values {', '.join(map(str, unknown[:SHOWN]))}{many}{negative} are not declared"
            remedy = f"declared are {declared}; name the others in data.labels"
            if source.path.suffix.lower() in LOSSY:
                remedy = "JPEG alters the values of a mask: save the original as PNG"
            elif len(reading.values or {}) > MOST_VALUES:
                remedy = "this seems to be an image, not a mask"
            elif len(unknown) > SHOWN and min(labels.values) < min(unknown) <= max(unknown) < max(labels.values):
                remedy = f"declared are {declared}; was the mask smoothed or interpolated? Write it again without"
            yield view.fault("error", case, source, fault, remedy, "label_value")


def empty(view: View) -> Iterator[Fault]:
    """A mask without foreground may be right; all masks without it are not."""
    labels = view.dataset.labels
    if labels is None or not view.masks:
        return
    fewest = view.settings.fewest_foreground_voxels
    without = 0
    for case, source, reading in view.masks:
        counts = foreground_voxels(view, reading)
        foreground = sum(counts[name] for name in labels.foreground)
        undeclared = any(value not in (*labels.values, labels.ignore) for value in reading.values or {})
        if foreground == 0 and not undeclared and reading.fraction is None:
            without += 1
            fault = "the label mask is empty: no foreground, background only"
            yield view.fault("warning", case, source, fault, "make sure that nothing is to be seen there", "empty_mask")
        elif foreground == sum(counts.values()) and not undeclared:
            fault = "the label mask has no background: every voxel is foreground"
            remedy = "look at the mask; are its values off by one?"
            yield view.fault("warning", case, source, fault, remedy, "full_mask")
        elif 0 < foreground < fewest:
            fault = f"the foreground is very small: {foreground} voxel{'s' if foreground > 1 else ''}"
            yield view.fault("warning", case, source, fault, "look at the mask for a slip", "small_mask")
    if without == len(view.masks):
        fault = f"all {without} label masks are empty: no foreground anywhere"
        yield view.dataset_fault("error", fault, "compare the masks' values with data.labels", "empty_masks")


def misfit(view: View) -> Iterator[Fault]:
    """A mask explains the image better when it is turned over: its voxels are stored in another order."""
    for case, source, reading in view.masks:
        if reading.fit is not None:
            given, best, how = reading.fit
            if best - given > view.settings.misfit:
                fault = (
                    f"the label mask fits its image better {how}: it then explains {best:.0%} of the image's variance, "
                    f"as it is {given:.0%}"
                )
                yield view.fault("warning", case, source, fault, "look at image and mask together", "misfit")


def rare_classes(view: View) -> Iterator[Fault]:
    """A declared class that no mask shows, or too few patients for every fold to have one."""
    labels = view.dataset.labels
    if labels is None or not view.masks:
        return
    patients: dict[str, set[str]] = {name: set() for name in labels.foreground}
    for case, _, reading in view.masks:
        for name, count in foreground_voxels(view, reading).items():
            if count and name in patients:
                patients[name].add(case.patient_id)
    folds = view.settings.folds
    for name, found in patients.items():
        numbers = ", ".join(str(value) for value, other in labels.values.items() if other == name)
        if not found:
            fault = f"class {name} (value {numbers}) is declared but appears in no mask"
            yield view.dataset_fault("warning", fault, "take it out of the labels if it is not meant", "absent_class")
        elif folds is not None and len(found) < folds:
            fault = f"class {name} (value {numbers}) appears in {len(found)} patient(s) only, fewer than {folds} folds"
            yield view.dataset_fault("warning", fault, "some folds will have no case to measure it on", "rare_class")
