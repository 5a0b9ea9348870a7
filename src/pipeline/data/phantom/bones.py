"""Ribs, breastbone, shoulder blades, collar bones and spine."""

from __future__ import annotations

import numpy as np

from pipeline.data.phantom.chest import Chest
from pipeline.data.phantom.shapes import Array, Box, Canvas, capsule, ellipsoid

DISC_HU = 80.0


def paint_bones(canvas: Canvas, chest: Chest, cage: Array) -> None:
    """Paint ribs with their cartilage, breastbone, shoulder blades, collar bones and spine."""
    x, y, z = canvas.points
    aside = np.abs(x)
    step = (z + chest.rib_slope * (y + chest.half_depth) - chest.phase) / chest.vertebra
    along = (step - np.round(step)) * chest.vertebra * 0.92
    rib = (np.sqrt(((cage - 7) / 3.6) ** 2 + (along / 5.2) ** 2) - 1) * 4
    rib = np.maximum(rib, np.maximum(17 - aside, -z - 105 + 0.5 * np.maximum(-y, 0)))
    front = canvas.cover((0.62 * chest.half_depth - y) + 0.2 * (aside - 40))
    _paint_bone(canvas, rib, 350 - 230 * front, 620 - 480 * front)
    breastbone = np.maximum(np.abs(cage - 9) - 5, np.maximum(aside - 17, np.maximum(z - 75, -55 - z)))
    _paint_bone(canvas, np.maximum(breastbone, -y), 180.0, 450.0)
    for side in (-1.0, 1.0):
        centre = (side * 0.78 * chest.half_width, -0.8 * chest.half_depth, 58.0)
        box = canvas.box(centre, 62)
        if box is not None:
            blade = ellipsoid(canvas.at(box), centre, (44, 50, 58))
            _paint_bone(canvas, np.maximum(np.abs(cage[box] - 22) - 2.5, blade), 300.0, 600.0, box)
        inner = (side * 14, 0.72 * chest.half_depth, chest.apex - 6)
        outer = (side * (chest.half_width + 22), 0.05 * chest.half_depth, chest.apex + 20)
        box = canvas.boxes(np.array([[inner, outer]]), np.array([8.0]))[0]
        if box is not None:
            _paint_bone(canvas, capsule(canvas.at(box), inner, outer, 6.5, 6.5), 350.0, 650.0, box)
    _paint_spine(canvas, chest)


def _paint_bone(
    canvas: Canvas, distance: Array, marrow_hu: float | Array, shell_hu: float | Array, box: Box | None = None
) -> None:
    canvas.paint(canvas.cover(distance), shell_hu, box)
    canvas.paint(canvas.cover(distance + 2.5), marrow_hu, box)


def _paint_spine(canvas: Canvas, chest: Chest) -> None:
    """Paint vertebrae with arch and processes, discs between them and the canal behind."""
    low = (-48.0, -chest.half_depth - 60, -400.0)
    high = (48.0, chest.spine_y + 40, 400.0)
    corners = np.array([[(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]])
    box = canvas.boxes(corners, np.array([0.0]))[0]
    if box is None:
        return
    x, y, z = canvas.at(box)
    y = y - chest.spine(z)
    step = (z - chest.phase) / chest.vertebra
    level = np.abs(step - np.round(step)) * chest.vertebra
    column = (np.sqrt((x / 18) ** 2 + (y / 14.5) ** 2) - 1) * 16
    canvas.paint(canvas.cover(column), DISC_HU, box)
    body = np.maximum(column + 1.5 * np.cos(np.pi * level / chest.vertebra) ** 2, level - 0.4 * chest.vertebra)
    _paint_bone(canvas, body, 190.0, 420.0, box)
    # The processes of a thoracic vertebra point backwards and downwards.
    low_step = (z - 0.5 * y - chest.phase) / chest.vertebra
    tilted = np.abs(low_step - np.round(low_step)) * chest.vertebra * 0.9
    canal = np.sqrt(x * x + (y + 23) ** 2)
    ring = np.maximum(np.abs(canal - 11.5) - 2.8, level - 8)
    spinous = np.maximum(np.maximum(np.abs(x) - 3, np.abs(y + 45) - 15), tilted - 6)
    sideways = np.maximum(np.maximum(np.abs(x) - 34, np.abs(y + 24 + 0.25 * np.abs(x)) - 4.5), level - 5.5)
    sideways = np.maximum(sideways, 11 - np.abs(x))
    _paint_bone(canvas, np.minimum(np.minimum(ring, spinous), sideways), 320.0, 500.0, box)
    canvas.paint(canvas.cover(canal - 8.5), 25.0, box)
