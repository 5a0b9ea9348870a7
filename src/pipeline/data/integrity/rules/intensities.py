"""Intensities: voxels that are no numbers, images that show nothing, images in other units."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View


def nonfinite(view: View) -> Iterator[Fault]:
    """A single NaN makes the loss NaN, unless the configuration says what to put in its place."""
    policy = view.settings.missing_voxels
    for case in view.dataset.cases:
        for source, reading in view.images(case):
            if reading.nonfinite:
                fault = f"{reading.nonfinite:,} voxels are not finite (NaN or infinite)"
                remedy = "replace them, set data.missing.voxels=fill or interpolate, or take the case out"
                if policy == "error":
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


def other_units(view: View) -> Iterator[Fault]:
    """The intensity range of an image is many times larger or smaller than the median range of its modality."""
    factor = view.settings.intensity_factor
    for modality in view.dataset.modalities:
        found = []
        for case in view.dataset.cases:
            if modality in case.images:
                source, _, reading = view.sources(case)[list(case.images).index(modality)]
                if reading.fault is None and reading.high > reading.low:
                    found.append((case, source, reading.high - reading.low))
        if len(found) < 3:
            continue
        median = float(np.median([width for _, _, width in found]))
        for case, source, width in found:
            if not median / factor <= width <= median * factor:
                fault = f"intensity range {width:.4g} is an outlier: the median of the data set is {median:.4g}"
                yield view.fault("warning", case, source, fault, "compare its units with the others", "intensity")
