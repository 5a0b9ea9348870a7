"""One patient's chest: sizes, places and the surfaces that bound the lungs.

The patient's frame has its origin between the hila, x to the right, y to the front, z to the head, in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.phantom.settings import PhantomSettings, Range
from pipeline.data.phantom.shapes import Array, Point, Points, dome, ellipsoid, smooth_max


def uniform(rng: np.random.Generator, bounds: Range) -> float:
    """Draw a plain float, so that float32 arrays stay float32."""
    return float(rng.uniform(*bounds))


@dataclass(frozen=True)
class Chest:
    """Sizes (mm) and places of what surrounds the lungs."""

    half_width: float
    half_depth: float
    apex: float  # z of the lung apices
    domes: tuple[float, float]  # z of the right and left diaphragm
    drop: float  # how far the diaphragm falls from its dome to the rib cage
    fat: float
    muscle: float
    breast: float  # thickness of the breasts, 0 for none
    heart: Point
    heart_radii: Point
    heart_axes: NDArray[np.float64]
    spine_y: float
    spine_bend: float  # forward shift of the spine at its ends, mm per mm^2
    vertebra: float  # distance between vertebrae
    rib_slope: float  # fall of a rib per mm towards the front
    phase: float  # where along z the first vertebra and rib lie, mm
    midline: float  # half width of the tissue between the lungs at the front

    def spine(self, z: Array) -> Array:
        """Return y of the vertebral bodies at height z."""
        return self.spine_y + self.spine_bend * (z - 10) ** 2

    def rib_cage(self, points: Points) -> Array:
        """Distance to the inner surface of the ribs."""
        radii = (self.half_width + 3, self.half_depth + 3, self.apex + 20)
        return dome(points, (0, 0, -10), radii, 2.3)

    def diaphragm(self, points: Points) -> Array:
        """Distance to the diaphragm, negative above it."""
        x, y, z = points
        side = np.where(x > 0, np.float32(self.domes[0]), np.float32(self.domes[1]))
        across = (np.abs(x) - 0.45 * self.half_width) / (0.55 * self.half_width)
        along = (y - 0.15 * self.half_depth) / self.half_depth
        fall = self.drop * (1.2 * across**2 + np.where(y < 0, np.float32(1.35), np.float32(0.6)) * along**2)
        result: Array = (side - fall - z) * 0.8
        return result

    def heart_distance(self, points: Points) -> Array:
        """Distance to the pericardium."""
        return ellipsoid(points, self.heart, self.heart_radii, self.heart_axes)

    def mediastinum(self, points: Points) -> Array:
        """Distance to what lies between the lungs: heart, great vessels and their fat, spine."""
        x, y, z = points
        width = self.midline + 17 * np.exp(-(((y + 12) / 34) ** 2)) + 8 / (1 + np.exp(-(z - 45) / 12))
        width = width + 10 * np.exp(-((z + 8) ** 2) / 500 - (y + 10) ** 2 / 400)
        middle = np.abs(x + 2) - width
        behind = np.maximum(y - self.spine(z) - 4, 0)
        spine = np.sqrt(x * x + behind * behind) - 21
        result: Array = np.minimum(np.minimum(middle, spine), self.heart_distance(points) - 3)
        return result

    def lungs(self, points: Points) -> Array:
        """Distance to both lungs: what the ribs, the diaphragm and the mediastinum leave."""
        x, y, z = points
        aside = np.abs(x)
        radii = (0.54 * self.half_width, 0.97 * self.half_depth, self.apex + 10)
        # The apices lie further back and nearer to the spine than the middle of the lungs.
        lift = np.clip((z + 10) / (self.apex + 10), 0, 1)
        pleura = dome(
            (aside + 0.14 * self.half_width * lift, y + 0.16 * self.half_depth * lift, z),
            (0.48 * self.half_width, 0, -10),
            radii,
            2.2,
        )
        wall = smooth_max(pleura, self.rib_cage(points) + 3, 12)
        inner = smooth_max(wall, -self.mediastinum(points), 8)
        return smooth_max(inner, self.diaphragm(points), 5)


def draw_chest(rng: np.random.Generator, settings: PhantomSettings) -> Chest:
    """Draw the sizes and places of one chest."""
    half_width = uniform(rng, settings.chest_half_width_mm)
    half_depth = uniform(rng, settings.chest_half_depth_mm)
    height = uniform(rng, settings.lung_height_mm)
    apex = 0.57 * height
    right = apex - height
    size = uniform(rng, (0.92, 1.12))
    # The heart's long axis points to the left, the front and the feet.
    long = np.array([-0.72, 0.5, -0.48]) + rng.normal(0, 0.08, 3)
    long /= np.linalg.norm(long)
    short = np.cross(long, [0.0, 0.0, 1.0])
    short /= np.linalg.norm(short)
    spine_y = -0.74 * half_depth
    return Chest(
        half_width=half_width,
        half_depth=half_depth,
        apex=apex,
        domes=(right, right - uniform(rng, (8, 20))),
        drop=uniform(rng, (30, 46)),
        fat=uniform(rng, settings.fat_mm),
        muscle=uniform(rng, (17, 26)),
        breast=uniform(rng, (14, 34)) if rng.random() < 0.5 else 0.0,
        heart=(-22 + uniform(rng, (-4, 4)), 0.2 * half_depth, right + uniform(rng, (16, 24)) * size),
        heart_radii=(66 * size, 48 * size, 46 * size),
        heart_axes=np.stack([long, short, np.cross(long, short)]),
        spine_y=spine_y,
        spine_bend=uniform(rng, (0.0003, 0.0014)),
        vertebra=uniform(rng, (22, 26)),
        rib_slope=uniform(rng, (0.3, 0.5)),
        phase=uniform(rng, (0, 24)),
        midline=uniform(rng, (3, 7)),
    )
