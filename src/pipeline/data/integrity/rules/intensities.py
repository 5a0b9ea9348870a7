"""Intensities: voxels that are no numbers, images that show nothing, images in other units."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View

BINARY = 4  # values that an image of one bit has at most, ends of a resampling included
LARGEST = float(np.finfo(np.float32).max)
FEWEST = 3  # images from which a median means something
PART = 0.55  # of the usual number of planes that show something; fewer are reported
SEVERAL = 16  # values that an image has at least


def nonfinite(view: View) -> Iterator[Fault]:
    """A single NaN makes the loss NaN, unless the configuration says what to put in its place."""
    policy = view.settings.missing_voxels
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            if max(abs(reading.minimum), abs(reading.maximum)) > LARGEST:
                extremes = f"{reading.minimum:g} to {reading.maximum:g}"
                fault = f"intensities from {extremes} are too large: in float32 they are not finite (infinite)"
                yield view.fault("error", case, source, fault, "compare its scale (scl_slope) with others", "nonfinite")
            if not reading.nonfinite:
                continue
            if reading.nonfinite == reading.channels * math.prod(reading.shape):
                fault = "the image is empty: no voxel is finite, all are NaN or infinite"
                yield view.fault("error", case, source, fault, "restore the image, or take the case out", "nonfinite")
                continue
            fault = f"{reading.nonfinite:,} voxels are not finite (NaN or infinite)"
            if policy == "error":
                remedy = "replace them, set data.missing.voxels=fill or interpolate, or take the case out"
                yield view.fault("error", case, source, fault, remedy, "nonfinite")
            else:
                said = f"data.missing.voxels={policy} gives them a value"
                yield view.fault("warning", case, source, fault, said, "nonfinite")


def constant(view: View) -> Iterator[Fault]:
    """All voxels are equal: the image is empty."""
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            if reading.minimum == reading.maximum and not reading.nonfinite:
                fault = f"the image is constant: every voxel is {reading.minimum:g}"
                yield view.fault("error", case, source, fault, "restore the image, or take the case out", "constant")
            elif reading.flat:
                fault = f"channel {reading.flat[0]} is constant: every voxel of it is equal, it is empty"
                yield view.fault("error", case, source, fault, "restore it, or take the case out", "constant")


def nearly_constant(view: View) -> Iterator[Fault]:
    """Hardly any voxel differs from the rest, or most are at the upper end of the range."""
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            if reading.minimum == reading.maximum:
                continue
            if reading.distinct == 1:
                fault = f"the image is nearly constant: all of a sample of its voxels are {reading.low:g}"
                yield view.fault("warning", case, source, fault, "look at the image", "nearly_constant")
            elif reading.saturated > view.settings.saturated_fraction and reading.distinct > BINARY:
                fault = f"the image is saturated: {reading.saturated:.0%} of its voxels are at the maximum"
                yield view.fault("warning", case, source, fault, "look at the image", "saturated")


def like_a_mask(view: View) -> Iterator[Fault]:
    """An image has so few values that it is rather a mask, while the others do not."""
    for found in view.by_modality.values():
        if not found or np.median([reading.distinct for _, _, reading in found]) <= SEVERAL:
            continue
        for case, source, reading in found:
            if 1 < reading.distinct <= BINARY and reading.minimum < reading.maximum:
                fault = f"has {reading.distinct} different values only: is this a mask, not an image?"
                yield view.fault("warning", case, source, fault, "name the image itself", "like_a_mask")


def swapped(view: View) -> Iterator[Fault]:
    """Most images look like masks and most masks like images: the two were exchanged."""
    labels = view.dataset.labels
    if labels is None or not view.masks:
        return
    images = [reading for found in view.by_modality.values() for _, _, reading in found]
    known = {*labels.values, labels.ignore}
    masklike = [reading for reading in images if reading.distinct <= len(known) and reading.minimum < reading.maximum]
    imagelike = [reading for _, _, reading in view.masks if len(reading.values or {}) > 2 * len(known) + SEVERAL]
    if 2 * len(masklike) > len(images) and 2 * len(imagelike) > len(view.masks):
        fault = "images and label masks seem to be swapped: the masks have many values, the images few"
        yield view.dataset_fault("error", fault, "exchange the columns image and label", "swapped")


def blank_slices(view: View) -> Iterator[Fault]:
    """Slices inside a volume show nothing: they were lost, and something was put in their place."""
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            if reading.blank:
                count, first = reading.blank
                many = f"{count} slices between others are" if count > 1 else "a slice between others is"
                fault = f"{many} blank (constant), the first is number {first}: slices are missing"
                yield view.fault("warning", case, source, fault, "compare with the original scan", "blank_slices")


def cut_off(view: View) -> Iterator[Fault]:
    """Beyond some plane nothing is to be seen, while the others are filled: the acquisition or the file broke off."""
    for found in view.by_modality.values():
        shown = np.array([min(reading.extent, default=1.0) for _, _, reading in found])
        usual = float(np.median(shown)) if len(shown) >= FEWEST else 0.0
        for number in np.flatnonzero(shown <= PART * usual):
            case, source, reading = found[number]
            if reading.minimum < reading.maximum:
                fault = (
                    f"only {shown[number]:.0%} of its planes along one axis show something, the others are blank "
                    f"(constant); most images have {usual:.0%}: was it cut off?"
                )
                yield view.fault("warning", case, source, fault, "compare with the original scan", "cut_off")


def other_units(view: View) -> Iterator[Fault]:
    """The intensity range of an image is many times larger or smaller than the median range of its modality."""
    factor = view.settings.intensity_factor
    for images in view.by_modality.values():
        found = [(case, source, reading.high - reading.low) for case, source, reading in images]
        found = [item for item in found if item[2] > 0]
        if len(found) < 3:
            continue
        median = float(np.median([width for _, _, width in found]))
        for case, source, width in found:
            if not median / factor <= width <= median * factor:
                fault = f"intensity range {width:.4g} is an outlier: the median of the data set is {median:.4g}"
                yield view.fault("warning", case, source, fault, "compare its units with the others", "intensity")
