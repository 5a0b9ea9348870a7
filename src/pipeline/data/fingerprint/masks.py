"""What a mask holds: voxels, components and contact with the border, per class and region."""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np

from pipeline.data.fingerprint.model import Connectivity, Finite, Record
from pipeline.data.labels import IGNORED, Labels, class_counts

Neighbours = Literal[4, 6, 8, 18, 26]

NEIGHBOURS: dict[tuple[int, Connectivity], Neighbours] = {
    (2, "faces"): 4,
    (2, "edges"): 8,
    (2, "corners"): 8,
    (3, "faces"): 6,
    (3, "edges"): 18,
    (3, "corners"): 26,
}


class PartMeasure(Record):
    """One class or region in one mask."""

    voxels: int
    components: int
    touching: bool


class MaskMeasure(Record):
    """One mask. ``voxel_size``: mm^3, mm^2 or 1; ``voxels``: all of them, ``ignored``: those that are no class."""

    voxel_size: Finite
    voxels: int
    ignored: int
    classes: dict[str, PartMeasure]
    regions: dict[str, PartMeasure]


Box = tuple[slice, ...]


def measure_mask(indices: np.ndarray, labels: Labels, voxel_size: float, connectivity: Connectivity) -> MaskMeasure:
    """Measure class indices (*spatial) uint8, IGNORED where nobody annotated."""
    counts = class_counts(indices)
    border = np.zeros(IGNORED + 1, bool)
    for axis in range(indices.ndim):
        border[np.take(indices, 0, axis)] = True
        border[np.take(indices, -1, axis)] = True
    box = bounding_box((indices > 0) & (indices < IGNORED))
    inside = None if box is None else np.ascontiguousarray(indices[box])
    neighbours = NEIGHBOURS[2 if indices.ndim == 2 else 3, connectivity]
    names = dict(enumerate(labels.names))
    found = np.zeros(IGNORED + 1, np.int64) if inside is None else component_counts(inside, neighbours)
    classes = {
        name: PartMeasure(voxels=int(counts[index]), components=int(found[index]), touching=bool(border[index]))
        for index, name in names.items()
        if index > 0
    }
    regions = {}
    for name, parts in (labels.parts if labels.regions is not None else {}).items():
        number = 0 if inside is None else component_counts(np.isin(inside, parts).astype(np.uint8), neighbours)[1]
        touching = bool(border[list(parts)].any())
        regions[name] = PartMeasure(voxels=int(counts[list(parts)].sum()), components=int(number), touching=touching)
    return MaskMeasure(
        voxel_size=voxel_size, voxels=indices.size, ignored=int(counts[IGNORED]), classes=classes, regions=regions
    )


def component_counts(indices: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """Number of connected components of each class index, (256,); one component has one class."""
    component, number = cc3d.connected_components(indices, connectivity=neighbours, return_N=True)
    class_of = np.zeros(number + 1, np.uint8)
    class_of[component.ravel()] = indices.ravel()
    return np.bincount(class_of[1:], minlength=IGNORED + 1)


def bounding_box(inside: np.ndarray) -> Box | None:
    """The smallest box around the true voxels, None where there is none."""
    box = []
    for axis in range(inside.ndim):
        others = tuple(other for other in range(inside.ndim) if other != axis)
        places = np.flatnonzero(inside.any(axis=others))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
