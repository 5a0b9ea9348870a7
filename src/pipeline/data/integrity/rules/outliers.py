"""Images unlike the others of the data set: voxel size, extent, number type, polarity."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from pipeline.data.case import Case, Source
from pipeline.data.integrity.picture import thumbnail
from pipeline.data.integrity.reading import Reading
from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View, voxel_size

FEWEST = 3  # images from which a median means something
FIELD_MM = (1.0, 3000.0)  # extent of a volume that a scanner of patients can have
NO_SPACE = tuple(np.eye(4).ravel().tolist())  # of pictures
USUAL = 0.8  # share of the images that must agree before another one is unusual


def size(view: View) -> Iterator[Fault]:
    """Voxels or images many times larger or smaller than the others, or than anything a scanner makes."""
    factor = view.settings.spacing_factor
    for found in view.by_modality.values():
        placed = [(case, source, reading) for case, source, reading in found if len(reading.shape) > 1]
        groups: dict[int, list[tuple[Case, Source, Reading]]] = defaultdict(list)
        for item in placed:
            groups[len(item[2].shape)].append(item)
        for group in groups.values():
            sizes = np.array([voxel_size(reading) for _, _, reading in group])
            spacings = np.sort(sizes, axis=1)
            extents = np.sort(sizes * [reading.shape for _, _, reading in group], axis=1)
            for what, unit, values in (("voxel size", "mm", spacings), ("extent", "mm", extents)):
                median = np.median(values, axis=0)
                apart = np.exp(np.abs(np.log(values / median))).max(axis=1)
                for number in np.flatnonzero(apart >= factor) if len(group) >= FEWEST else ():
                    case, source, _ = group[number]
                    fault = (
                        f"{what} {_listed(values[number])} {unit} is an outlier (spacing or shape): "
                        f"the median of the data set is {_listed(median)} {unit}"
                    )
                    remedy = "compare with the original scan: units, missing slices, another region"
                    yield view.fault("warning", case, source, fault, remedy, "size")
            for (case, source, reading), extent in zip(group, extents, strict=True):
                if FIELD_MM[0] <= extent.max() <= FIELD_MM[1]:
                    continue
                if reading.affine != NO_SPACE:
                    fault = f"spacing gives an extent of {_listed(extent)} mm, which no patient has"
                    yield view.fault("warning", case, source, fault, "is its unit millimetres?", "extent")


def _listed(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def number_type(view: View) -> Iterator[Fault]:
    """A few pictures have another depth (8 or 16 bits) than the others: their grey values are on another scale."""
    for found in view.by_modality.values():
        pictures = [item for item in found if len(item[2].shape) == 2]
        counts = Counter(reading.dtype for _, _, reading in pictures)
        if len(counts) < 2:
            continue
        usual, count = counts.most_common(1)[0]
        if count < USUAL * len(pictures):
            said = ", ".join(f"{count} {name}" for name, count in counts.most_common())
            fault = f"pictures of different depths: {said}"
            yield view.dataset_fault("warning", fault, "bring their grey values to one scale", "number_type")
            continue
        for case, source, reading in pictures:
            if reading.dtype != usual:
                fault = f"data type {reading.dtype} (up to {reading.maximum:g}) while the others are {usual}"
                yield view.fault("warning", case, source, fault, "bring its grey values to the scale", "number_type")


def inverted(view: View) -> Iterator[Fault]:
    """A picture is the negative of what the others show (MONOCHROME1): bright and dark are exchanged."""
    limit = view.settings.inverted_correlation
    for found in view.by_modality.values():
        pictures = [item for item in found if item[2].thumb]
        if len(pictures) < FEWEST:
            continue
        thumbs = np.array([thumbnail(reading.thumb) for _, _, reading in pictures])
        thumbs -= thumbs.mean(axis=1, keepdims=True)
        thumbs /= np.linalg.norm(thumbs, axis=1, keepdims=True) + 1e-6
        mean = thumbs.mean(axis=0)
        alike = thumbs @ (mean / max(float(np.linalg.norm(mean)), 1e-6))
        if np.median(alike) < -limit:  # the pictures have no common look
            continue
        for number in np.flatnonzero(alike < limit):
            case, source, _ = pictures[number]
            fault = (
                f"looks like a negative: bright and dark are inverted (correlation {alike[number]:.2f} with the mean)"
            )
            yield view.fault("warning", case, source, fault, "invert it if it is MONOCHROME1", "inverted")


def air(view: View) -> Iterator[Fault]:
    """A CT whose darkest voxels lie far above those of the others: stored with an offset, not in Hounsfield units."""
    for found in view.by_modality.values():
        lows = np.array([reading.low for _, _, reading in found])
        if len(lows) < FEWEST or np.median(lows) > -view.settings.air_shift_hu:
            continue
        if np.mean(np.abs(lows - np.median(lows)) < view.settings.air_shift_hu / 2) < USUAL:
            continue
        for number in np.flatnonzero(np.abs(lows - np.median(lows)) >= view.settings.air_shift_hu):
            case, source, _ = found[number]
            fault = (
                f"intensity offset: its darkest voxels are at {lows[number]:g}, those of most at {np.median(lows):g}"
            )
            yield view.fault("warning", case, source, fault, "is it in Hounsfield units?", "offset")
