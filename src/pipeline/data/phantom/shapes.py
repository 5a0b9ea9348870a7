"""Signed distances in mm (negative inside) and the canvas that mixes tissues by how much of a voxel they fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""float32 on voxel grids, to be fast and small."""
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
Points = tuple[Array, Array, Array]


def smooth_max(a: Array, b: Array, width: float) -> Array:
    """Return the maximum of two distances with its edge rounded over ``width`` mm (quadratic polynomial)."""
    blend = np.maximum(width - np.abs(a - b), 0) / width
    result: Array = np.maximum(a, b) + blend * blend * (width / 4)
    return result


def rotate(offset: list[Array], axes: NDArray[np.float64]) -> list[Array]:
    """Return vectors, given by their components, along the three ``axes`` (rows)."""
    x, y, z = offset
    return [a * x + b * y + c * z for a, b, c in axes.tolist()]


def ellipsoid(points: Points, centre: Point, radii: Point, axes: NDArray[np.float64] | None = None) -> Array:
    """Distance to an ellipsoid, measured along the ray from its centre; ``axes`` has its directions in rows."""
    offset = [p - c for p, c in zip(points, centre, strict=True)]
    if axes is not None:
        offset = rotate(offset, axes)
    length = np.sqrt(sum(o * o for o in offset))
    scaled = np.sqrt(sum((o / r) ** 2 for o, r in zip(offset, radii, strict=True)))
    result: Array = length - length / np.maximum(scaled, 1e-3)
    return result


def dome(points: Points, centre: Point, radii: Point, power: float) -> Array:
    """Distance to a superellipsoid above its centre that goes on as a cylinder below it."""
    offset = [points[0] - centre[0], points[1] - centre[1], np.maximum(points[2] - centre[2], 0)]
    length = np.sqrt(sum(o * o for o in offset))
    scaled = sum((np.abs(o) / np.float32(r)) ** np.float32(power) for o, r in zip(offset, radii, strict=True))
    scaled = np.maximum(scaled, 1e-6) ** np.float32(1 / power)
    result: Array = length - length / scaled
    return result


def capsule(points: Points, start: Point, end: Point, start_radius: float, end_radius: float) -> Array:
    """Distance to a round tube from ``start`` to ``end`` whose radius changes linearly."""
    axis = [e - s for s, e in zip(start, end, strict=True)]
    squared = max(sum(a * a for a in axis), 1e-6)
    offset = [p - s for p, s in zip(points, start, strict=True)]
    along = np.clip(sum(o * a for o, a in zip(offset, axis, strict=True)) / squared, 0, 1)
    across = sum((o - along * a) ** 2 for o, a in zip(offset, axis, strict=True))
    result: Array = np.sqrt(across) - (start_radius + along * (end_radius - start_radius))
    return result


@dataclass(frozen=True)
class Waves:
    """A smooth random field: the sum of sine waves.

    ``vectors`` (n, 3) in rad/mm, ``phases`` (n,), ``amplitudes`` (n,).
    """

    vectors: NDArray[np.float64]
    phases: NDArray[np.float64]
    amplitudes: NDArray[np.float64]

    @staticmethod
    def draw(rng: np.random.Generator, count: int, wavelength_mm: tuple[float, float], amplitude: float) -> Waves:
        """Draw ``count`` waves of random direction and phase whose amplitudes add up to ``amplitude``."""
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        share = rng.uniform(0.5, 1, count)
        number = 2 * np.pi / rng.uniform(*wavelength_mm, count)
        return Waves(direction * number[:, None], rng.uniform(0, 2 * np.pi, count), amplitude * share / share.sum())

    def at(self, points: Points) -> Array:
        """Return the field at points of any shape."""
        total = np.zeros(np.broadcast_shapes(*(p.shape for p in points)), np.float32)
        for vector, phase, amplitude in zip(self.vectors, self.phases, self.amplitudes, strict=True):
            angle = sum(float(v) * p for v, p in zip(vector, points, strict=True)) + float(phase)
            total += float(amplitude) * np.sin(angle)
        return total


def warp(points: Points, waves: tuple[Waves, Waves, Waves]) -> Points:
    """Move points by three smooth fields, so that no organ keeps the outline of its formula."""
    x, y, z = (p + wave.at(points) for p, wave in zip(points, waves, strict=True))
    return x, y, z


class Canvas:
    """A voxel grid seen from the patient: the anatomical position of each voxel, and the HU painted so far.

    ``to_patient`` (4, 4) takes voxel indices to the patient's frame in mm (x right, y anterior, z superior), which
    ``waves`` then bend. Arrays have the grid's ``shape``.
    """

    def __init__(
        self, shape: tuple[int, ...], to_patient: NDArray[np.float64], waves: tuple[Waves, Waves, Waves]
    ) -> None:
        steps = np.ogrid[tuple(slice(0, n) for n in shape)]
        i, j, k = (step.astype(np.float32) for step in steps)
        x, y, z = (a * i + b * j + c * k + start for a, b, c, start in to_patient[:3].tolist())
        self.points: Points = warp((x, y, z), waves)
        self.shape = shape
        self.hu: Array = np.full(shape, -1000, np.float32)
        self.voxel = float(abs(np.linalg.det(to_patient[:3, :3])) ** (1 / 3))
        self._to_voxel = np.linalg.inv(to_patient)
        self._bend = max(float(np.abs(wave.amplitudes).sum()) for wave in waves)

    def boxes(self, corners: NDArray[np.float64], reach: NDArray[np.float64]) -> list[Box | None]:
        """Return the voxels around each group of points, None where a group lies outside the grid.

        ``corners`` (n, m, 3) in mm; ``reach`` (n,) in mm is added on every side.
        """
        voxels = corners @ self._to_voxel[:3, :3].T + self._to_voxel[:3, 3]
        step = np.abs(self._to_voxel[:3, :3]).sum(axis=1)
        pad = (reach[:, None] + self._bend + self.voxel) * step
        low = np.maximum(np.floor(voxels.min(axis=1) - pad), 0).astype(int)
        high = np.minimum(np.ceil(voxels.max(axis=1) + pad) + 1, self.shape).astype(int)
        return [
            (slice(a[0], b[0]), slice(a[1], b[1]), slice(a[2], b[2])) if all(map(int.__lt__, a, b)) else None
            for a, b in zip(low.tolist(), high.tolist(), strict=True)
        ]

    def box(self, centre: Point, reach: float) -> Box | None:
        """Return the voxels within ``reach`` mm of a point, None if there are none."""
        return self.boxes(np.array([[centre]]), np.array([reach]))[0]

    def at(self, box: Box) -> Points:
        """Return the anatomical positions of a box."""
        x, y, z = self.points
        return x[box], y[box], z[box]

    def cover(self, distance: Array) -> Array:
        """Return which part of each voxel lies inside a surface, 0 to 1, from the distance of its centre."""
        result: Array = np.clip(0.5 - distance / self.voxel, 0, 1)
        return result

    def paint(self, cover: Array, hu: float | Array, box: Box | None = None) -> None:
        """Mix ``hu`` into the voxels (of a box) by how much of each is covered."""
        region = self.hu if box is None else self.hu[box]
        region += cover * (hu - region)
