"""The tissues of one chest, painted from the outside to the inside, and the two labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.phantom.anatomy import Anatomy
from pipeline.data.phantom.bones import paint_bones
from pipeline.data.phantom.chest import Chest
from pipeline.data.phantom.shapes import Array, Canvas, capsule
from pipeline.data.phantom.torso import MUSCLE_HU, paint_great_vessels, paint_organs, paint_wall
from pipeline.data.phantom.trees import Tree

LUNG, TUMOUR = 1, 2

MAIN_AIRWAY_MM = 4.0
"""Airways of at least this radius are no lung."""


@dataclass(frozen=True)
class Contrast:
    """What differs between two scans of a patient: HU of blood and lung, and the growth of the tumours (factor)."""

    blood_hu: float
    lung_hu: float
    growth: float


def paint_patient(canvas: Canvas, anatomy: Anatomy, contrast: Contrast) -> NDArray[np.uint8]:
    """Paint one patient onto the canvas and return the labels (0 background, 1 lung, 2 tumour) of its grid."""
    chest = anatomy.chest
    texture = anatomy.texture.at(canvas.points)
    cage = chest.rib_cage(canvas.points)
    paint_wall(canvas, chest, cage, texture)
    paint_organs(canvas, chest, cage, texture, contrast.blood_hu)
    paint_bones(canvas, chest, cage)
    lung = chest.lungs(canvas.points)
    _paint_lung(canvas, chest, lung, texture, contrast.lung_hu)
    vessels = np.zeros(canvas.shape, np.float32)
    for tree in anatomy.vessels:
        _cover_tubes(canvas, tree, vessels)
    canvas.paint(vessels * canvas.cover(lung - 4), contrast.blood_hu)
    great = paint_great_vessels(canvas, chest, contrast.blood_hu)
    airway = _paint_airways(canvas, anatomy.airways)
    labels = np.where((lung < 0) & (great > 0) & (airway > 0), np.uint8(LUNG), np.uint8(0))
    _paint_tumours(canvas, anatomy, lung, np.minimum(great, airway), contrast.growth, labels)
    return labels


def _paint_lung(canvas: Canvas, chest: Chest, lung: Array, texture: Array, lung_hu: float) -> None:
    """Paint the lung, denser towards the back where the blood sinks, and the fissures between its lobes."""
    x, y, z = canvas.points
    back = np.clip(-y / chest.half_depth, 0, 1)
    canvas.paint(canvas.cover(lung), lung_hu + 22 * texture + 90 * back * back * back)
    oblique = (z + 0.75 * y - 6 + 0.002 * (np.abs(x) - 70) ** 2) * np.float32(0.8)
    right = np.maximum(np.abs(z - 4 + 0.08 * x), 2 - np.minimum(oblique, x))
    fissure = np.minimum(np.abs(oblique), right) - 0.5
    canvas.paint(0.35 * canvas.cover(fissure) * canvas.cover(lung + 2), -300)


def _cover_tubes(canvas: Canvas, tree: Tree, cover: Array) -> None:
    """Raise ``cover`` to the part of each voxel that the tree fills."""
    starts, ends, start_radii, end_radii = tree.tubes()
    boxes = canvas.boxes(np.stack([starts, ends], axis=1), np.maximum(start_radii, end_radii))
    for box, start, end, r0, r1 in zip(
        boxes, starts.tolist(), ends.tolist(), start_radii.tolist(), end_radii.tolist(), strict=True
    ):
        if box is not None:
            # A tube thinner than a voxel never fills one.
            thin = min(1.0, 2 * r1 / canvas.voxel)
            part = canvas.cover(capsule(canvas.at(box), start, end, r0, r1)) * thin
            np.maximum(cover[box], part, out=cover[box])


def _paint_airways(canvas: Canvas, tree: Tree) -> Array:
    """Paint walls and air; return the distance to windpipe and main bronchi with their walls (large far away)."""
    starts, ends, start_radii, end_radii = tree.tubes()
    walls = 0.8 + 0.12 * end_radii
    boxes = canvas.boxes(np.stack([starts, ends], axis=1), np.maximum(start_radii, end_radii) + walls)
    wall_cover = np.zeros(canvas.shape, np.float32)
    air_cover = np.zeros(canvas.shape, np.float32)
    nearest = np.full(canvas.shape, 1e3, np.float32)
    for index, (box, start, end) in enumerate(zip(boxes, starts.tolist(), ends.tolist(), strict=True)):
        if box is None:
            continue
        r0, r1, wall = float(start_radii[index]), float(end_radii[index]), float(walls[index])
        distance = capsule(canvas.at(box), start, end, r0, r1)
        thin = min(1.0, 2 * r1 / canvas.voxel)
        around = canvas.cover(distance - wall) * min(1.0, 2 * (r1 + wall) / canvas.voxel)
        np.maximum(wall_cover[box], around, out=wall_cover[box])
        np.maximum(air_cover[box], canvas.cover(distance) * thin, out=air_cover[box])
        if r1 >= MAIN_AIRWAY_MM:
            np.minimum(nearest[box], distance - wall, out=nearest[box])
    canvas.paint(wall_cover, 0.5 * MUSCLE_HU)
    canvas.paint(air_cover, -990)
    return nearest


def _paint_tumours(
    canvas: Canvas, anatomy: Anatomy, lung: Array, barrier: Array, growth: float, labels: NDArray[np.uint8]
) -> None:
    """Paint the tumours and write their label over that of the lung; they spare what ``barrier`` is the distance to."""
    for tumour in anatomy.tumours:
        box = canvas.box(tumour.centre, tumour.reach(growth))
        if box is None:
            continue
        points = canvas.at(box)
        free = np.maximum(lung[box] - 1.5, 0.5 - barrier[box])
        outline = tumour.distance(points, growth)
        distance = np.maximum(outline, free)
        if tumour.halo:
            haze = 0.4 * np.clip(1 - outline / tumour.halo, 0, 1) * canvas.cover(free + 2)
            canvas.paint(haze, 0.0, box)
        core = np.clip(-outline / (0.5 * tumour.radius) - 0.8, 0, 1)
        texture = anatomy.texture.at(points)
        canvas.paint(canvas.cover(distance), tumour.hu + core * tumour.core_hu + 10 * texture, box)
        labels[box][distance < 0] = TUMOUR
