"""Tumours: where they sit and what outline they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.phantom.chest import Chest
from pipeline.data.phantom.settings import PhantomSettings
from pipeline.data.phantom.shapes import Array, Point, Points, capsule, rotate

KINDS = ("inside", "chest wall", "mediastinum")
SHARES = (0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Tumour:
    """One tumour.

    ``radius`` in mm is the geometric mean of the half axes, ``stretch`` their ratios to it; ``lobes`` (n, 5) are
    wave vector, phase and relative height of bumps on the outline; ``spikes`` (n, 4) are directions and lengths
    relative to the radius; ``halo`` in mm is the width of the hazy rim; ``core_hu`` is added in the middle.
    """

    centre: Point
    radius: float
    stretch: Point
    axes: NDArray[np.float64]
    lobes: NDArray[np.float64]
    spikes: NDArray[np.float64]
    hu: float
    core_hu: float
    halo: float

    def reach(self, growth: float) -> float:
        """Return how far from the centre the tumour and its halo may reach, mm."""
        spike = float(self.spikes[:, 3].max(initial=0))
        return self.radius * growth * max(1.35 * max(self.stretch), spike) + self.halo

    def distance(self, points: Points, growth: float) -> Array:
        """Distance to the outline; ``growth`` multiplies the size."""
        radius = self.radius * growth
        offset = [p - c for p, c in zip(points, self.centre, strict=True)]
        turned = [part / (radius * s) for part, s in zip(rotate(offset, self.axes), self.stretch, strict=True)]
        scaled = np.sqrt(sum(t * t for t in turned))
        outline = np.ones_like(scaled)
        for *vector, phase, height in self.lobes.tolist():
            angle = sum(v * t for v, t in zip(vector, turned, strict=True)) / np.maximum(scaled, 1e-3) + phase
            outline += height * np.sin(angle)
        found: Array = radius * (scaled - outline)
        for *direction, length in self.spikes.tolist():
            x, y, z = (c + radius * length * d for c, d in zip(self.centre, direction, strict=True))
            found = np.minimum(found, capsule(points, self.centre, (x, y, z), 0.22 * radius, 0.3))
        return found


def draw_tumour(rng: np.random.Generator, settings: PhantomSettings, chest: Chest, others: list[Tumour]) -> Tumour:
    """Draw a tumour that touches none of the ``others``."""
    low, high = np.log(settings.tumour_diameter_mm)
    radius = float(np.exp(rng.uniform(low, high))) / 2
    kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    stretch = rng.uniform(0.85, 1.18, 3)
    stretch /= stretch.prod() ** (1 / 3)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    lobed = rng.random() < 0.6
    bumps = 5
    vectors = rng.normal(size=(bumps, 3))
    vectors *= (rng.uniform(2.0, 4.5, bumps) / np.linalg.norm(vectors, axis=1))[:, None]
    heights = rng.uniform(0.4, 1, bumps)
    heights *= (0.28 if lobed else 0.1) / heights.sum()
    spike_count = int(rng.integers(6, 12)) if rng.random() < 0.4 else 0
    directions = rng.normal(size=(spike_count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True) + 1e-9
    return Tumour(
        centre=_place(rng, chest, kind, radius, others),
        radius=radius,
        stretch=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        axes=axes,
        lobes=np.column_stack([vectors, rng.uniform(0, 2 * np.pi, bumps), heights]),
        spikes=np.column_stack([directions, rng.uniform(1.25, 1.7, spike_count)]),
        hu=float(rng.uniform(*settings.tumour_hu)),
        core_hu=float(rng.uniform(-45, 0)) if radius > 14 else 0.0,
        halo=float(rng.uniform(3, 9)) if rng.random() < 0.4 else 0.0,
    )


def _place(rng: np.random.Generator, chest: Chest, kind: str, radius: float, others: list[Tumour]) -> Point:
    """Return a centre in a lung: deep inside, or so near to the wall or the mediastinum that it is touched."""
    low = (-chest.half_width, -chest.half_depth, chest.domes[1] - chest.drop)
    high = (chest.half_width, chest.half_depth, chest.apex)
    tried = rng.uniform(low, high, (4000, 3)).astype(np.float32)
    points = (tried[:, 0], tried[:, 1], tried[:, 2])
    depth = -chest.lungs(points)
    surface = {"chest wall": -chest.rib_cage(points), "mediastinum": chest.mediastinum(points)}
    if kind == "inside":
        fits = depth > 0.9 * radius + 2
    else:
        fits = (depth > 0.35 * radius) & (depth < 0.75 * radius) & (surface[kind] < depth + 6)
    free = np.ones(len(tried), bool)
    for other in others:
        free &= np.linalg.norm(tried - np.array(other.centre), axis=1) > 1.4 * (radius + other.radius) + 6
    # A place for every tumour: where no point fits its kind, the deepest free point.
    choice = np.flatnonzero(fits & free)
    best = int(choice[0]) if len(choice) else int(np.argmax(np.where(free, depth, -np.inf)))
    x, y, z = tried[best].tolist()
    return x, y, z
