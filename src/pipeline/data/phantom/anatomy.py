"""One patient: the chest, the trees inside the lungs, and the tumours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.phantom.chest import Chest, draw_chest
from pipeline.data.phantom.settings import PhantomSettings
from pipeline.data.phantom.shapes import Waves
from pipeline.data.phantom.trees import Tree, grow_tree, trunk
from pipeline.data.phantom.tumours import Tumour, draw_tumour

RIGHT, LEFT = 1.0, -1.0


@dataclass(frozen=True)
class Anatomy:
    """One patient: the chest, the trees inside the lungs, the tumours, and how the whole is bent."""

    chest: Chest
    bend: tuple[Waves, Waves, Waves]
    texture: Waves  # -1..1, the unevenness of soft tissue and lung
    airways: Tree
    vessels: tuple[Tree, ...]
    tumours: tuple[Tumour, ...]


def _inside_lung(rng: np.random.Generator, chest: Chest, side: float, depth: float, count: int) -> NDArray[np.float64]:
    """Return up to ``count`` points (n, 3) at least ``depth`` mm below the surface of one lung."""
    low = (0.0, -chest.half_depth, chest.domes[1] - chest.drop)
    high = (chest.half_width, chest.half_depth, chest.apex)
    points = rng.uniform(low, high, (12 * count, 3)) * (side, 1, 1)
    x, y, z = points.astype(np.float32).T
    return points[chest.lungs((x, y, z)) < -depth][:count]


def draw_anatomy(rng: np.random.Generator, settings: PhantomSettings, with_tumours: bool) -> Anatomy:
    """Draw one patient."""
    chest = draw_chest(rng, settings)
    bend = (
        Waves.draw(rng, 3, (80, 180), 6),
        Waves.draw(rng, 3, (80, 180), 6),
        Waves.draw(rng, 3, (80, 180), 6),
    )
    airways = trunk(chest.apex)
    vessels = []
    for side in (RIGHT, LEFT):
        hilum = (side * 37.0, -9.0, -8.0)
        airways = grow_tree(rng, airways, _inside_lung(rng, chest, side, 14, 16), near=hilum)
        for place, first in (((0, 6, 6), 130), ((-2, 3, -10), 90)):
            root = (hilum[0] - side * 9 + place[0], hilum[1] + place[1], hilum[2] + place[2])
            tree = Tree.root(root, (side, 0.0, 0.0))
            vessels.append(grow_tree(rng, tree, _inside_lung(rng, chest, side, 5, first), near=root))
    tumours: list[Tumour] = []
    if with_tumours:
        low, high = settings.tumours_per_patient
        for _ in range(int(rng.integers(low, high + 1))):
            tumours.append(draw_tumour(rng, settings, chest, tumours))
    return Anatomy(
        chest=chest,
        bend=bend,
        texture=Waves.draw(rng, 6, (14, 45), 1),
        airways=airways.with_radii(leaf=1.6, power=2.6),
        vessels=tuple(tree.with_radii(leaf=1.3, power=2.6) for tree in vessels),
        tumours=tuple(tumours),
    )
