"""Draws of parameters, and checks of their ranges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def checked_range(name: str, values: Sequence[float], least: float = -np.inf) -> tuple[float, float]:
    """``values`` as (low, high). Raises ValueError where they are not two rising numbers of at least ``least``."""
    if len(values) != 2 or not least <= values[0] <= values[1]:
        bound = "" if least == -np.inf else f" of at least {least:g}"
        raise ValueError(f"{name} {list(values)} needs a lowest and a highest value{bound}")
    return float(values[0]), float(values[1])


def checked_probability(name: str, value: float) -> float:
    """``value``. Raises ValueError where it is no probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} {value} is not between 0 and 1")
    return float(value)


def factor(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """A factor within ``bounds``; where they contain 1, as often below it as above (as nnU-Net draws them)."""
    low, high = bounds
    if low < 1 < high:
        low, high = (low, 1.0) if rng.random() < 0.5 else (1.0, high)
    return float(rng.uniform(low, high))
