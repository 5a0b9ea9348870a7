"""Chest wall, heart, great vessels and the organs under the diaphragm."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.data.phantom.chest import Chest
from pipeline.data.phantom.shapes import Array, Canvas, Point, capsule, ellipsoid, smooth_max

FAT_HU = -100.0
MUSCLE_HU = 55.0


def paint_wall(canvas: Canvas, chest: Chest, cage: Array, texture: Array) -> None:
    """Paint skin, fat with breasts and shoulders, muscle, and fill the cage with soft tissue."""
    x, y, z = canvas.points
    rise = np.clip((z - 55) / 70, 0, 1)
    rise = rise * rise * (3 - 2 * rise)
    muscle_width = chest.half_width + chest.muscle + 45 * rise
    muscle_depth = chest.half_depth + 4 + 0.75 * chest.muscle - 8 * rise
    middle = -0.06 * chest.half_depth
    length = np.sqrt(x * x + (y - middle) ** 2)

    def oval(width: Array | float, depth: Array | float) -> Array:
        scaled = (np.abs(x) / width) ** np.float32(2.5) + (np.abs(y - middle) / depth) ** np.float32(2.5)
        result: Array = length - length / np.maximum(scaled, 1e-4) ** np.float32(0.4)
        return result

    skin = oval(muscle_width + chest.fat, muscle_depth + 0.8 * chest.fat)
    if chest.breast:
        for side in (-1.0, 1.0):
            centre = (side * 0.52 * chest.half_width, chest.half_depth + 0.6 * chest.fat, -5.0)
            breast = ellipsoid(canvas.points, centre, (0.42 * chest.half_width, 20 + chest.breast, 55.0))
            skin = np.minimum(skin, breast)
    canvas.paint(canvas.cover(skin), 10)
    canvas.paint(canvas.cover(skin + 2.5), FAT_HU + 8 * texture)
    wall = oval(muscle_width, muscle_depth)
    # Fat runs between the muscles.
    streak = np.clip(1.5 * texture - 0.25, 0, 0.9) * np.clip((cage - 12) / 6, 0, 1)
    canvas.paint(canvas.cover(wall), MUSCLE_HU + 6 * texture + streak * (FAT_HU - MUSCLE_HU))


def paint_organs(canvas: Canvas, chest: Chest, cage: Array, texture: Array, blood_hu: float) -> None:
    """Paint what lies inside the ribs without the lungs: mediastinal fat, heart, liver, spleen, stomach."""
    below = -chest.diaphragm(canvas.points)
    canvas.paint(canvas.cover(cage + 2), MUSCLE_HU)
    fat = -35 + 80 * texture
    canvas.paint(canvas.cover(cage + 4), np.clip(fat, FAT_HU, 45))
    right, left = chest.domes
    wide, deep = chest.half_width, chest.half_depth
    organs: tuple[tuple[Point, Point, float], ...] = (
        ((0.4 * wide, 0.1 * deep, right - 62), (0.68 * wide, 0.92 * deep, 68), 62 + 0.35 * blood_hu),
        ((-0.62 * wide, -0.4 * deep, left - 42), (0.3 * wide, 0.4 * deep, 44), 50 + 0.4 * blood_hu),
        ((-0.42 * wide, 0.25 * deep, left - 44), (0.36 * wide, 0.5 * deep, 44), 25.0),
        ((-0.42 * wide, 0.5 * deep, left - 30), (0.22 * wide, 0.2 * deep, 20), -950.0),
    )
    for centre, radii, hu in organs:
        box = canvas.box(centre, max(radii))
        if box is not None:
            organ = smooth_max(ellipsoid(canvas.at(box), centre, radii), cage[box] + 5, 10)
            canvas.paint(canvas.cover(smooth_max(organ, below[box] + 3, 6)), hu + 4 * texture[box], box)
    canvas.paint(canvas.cover(np.maximum(np.abs(below) - 2.5, cage)), MUSCLE_HU)
    box = canvas.box(chest.heart, max(chest.heart_radii))
    if box is None:
        return
    heart = chest.heart_distance(canvas.at(box))
    canvas.paint(canvas.cover(heart - 1), FAT_HU + 30, box)
    canvas.paint(canvas.cover(heart + 4), 50 + 0.3 * max(blood_hu - 50, 0) + 5 * texture[box], box)
    long, short = chest.heart_axes[0].tolist(), chest.heart_axes[1].tolist()
    p, q, r = chest.heart_radii
    for forward, aside, size in ((12, -17, 0.42), (-26, 14, 0.4), (8, 20, 0.38), (-24, -20, 0.36)):
        x, y, z = (c + forward * a + aside * s for c, a, s in zip(chest.heart, long, short, strict=True))
        chamber = ellipsoid(canvas.at(box), (x, y, z), (size * p, size * q, size * r), chest.heart_axes)
        canvas.paint(canvas.cover(smooth_max(chamber, heart + 10, 6)), blood_hu, box)


def paint_great_vessels(canvas: Canvas, chest: Chest, blood_hu: float) -> Array:
    """Paint aorta, hollow veins, lung arteries and gullet; return the distance to them (large far away)."""
    deep = chest.half_depth
    base = chest.heart[2] + 0.75 * chest.heart_radii[2]
    back = chest.spine_y + 20
    arch = 36.0
    paths: tuple[tuple[float, float, tuple[Point, ...]], ...] = (
        (14.5, blood_hu, ((6, 0.22 * deep, base - 12), (14, 0.28 * deep, 14), (8, 0.14 * deep, arch))),
        (13.5, blood_hu, ((8, 0.14 * deep, arch), (-6, -0.06 * deep, arch + 8), (-20, -0.3 * deep, arch - 2))),
        (12.0, blood_hu, ((-20, -0.3 * deep, arch - 2), (-22, back, 6), (-18, back - 4, -70), (-12, back, -190))),
        (9.0, blood_hu, ((24, 0.12 * deep, base - 6), (24, 0.1 * deep, 40), (22, 0.08 * deep, 78))),
        (11.5, blood_hu, ((20, -0.1 * deep, base - 50), (22, -0.12 * deep, base - 100), (18, -0.3 * deep, -190))),
        (13.0, blood_hu, ((-16, 0.34 * deep, base - 14), (-14, 0.14 * deep, 6), (-14, 0.0, 8))),
        (9.5, blood_hu, ((-14, 0.0, 8), (-34, -0.1 * deep, 0))),
        (9.5, blood_hu, ((-14, 0.0, 8), (12, 0.0, 2), (34, -0.06 * deep, -4))),
        (6.0, blood_hu, ((22, 0.08 * deep, 78), (34, 0.1 * deep, 120))),
        (5.5, blood_hu, ((0, 0.06 * deep, arch + 8), (14, 0.06 * deep, 90), (18, 0.1 * deep, 190))),
        (5.0, blood_hu, ((-10, -0.04 * deep, arch + 8), (-18, -0.06 * deep, 95), (-20, 0.1 * deep, 190))),
        (7.0, 38.0, ((-4, -0.28 * deep, 190), (-4, back + 12, 20), (-6, back + 14, -60), (-14, back + 24, -120))),
    )
    nearest = np.full(canvas.shape, 1e3, np.float32)
    for radius, hu, path in paths:
        for start, end in pairwise(path):
            box = canvas.boxes(np.array([[start, end]]), np.array([radius]))[0]
            if box is None:
                continue
            distance = capsule(canvas.at(box), start, end, radius, radius)
            canvas.paint(canvas.cover(distance), hu, box)
            np.minimum(nearest[box], distance, out=nearest[box])
    return nearest
