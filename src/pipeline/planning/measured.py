"""Numbers of a fingerprint that the rules work with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.data.fingerprint import Fingerprint
from pipeline.data.fingerprint.model import Grid, Pooled, Spread

DIGITS = 6  # significant ones in a plan


def reference_grid(fingerprint: Fingerprint) -> Grid:
    """The grid onto which the other modalities are brought: that of the first."""
    return next(iter(fingerprint.overall.grids.values()))


def percentile(measured: Spread | Pooled, percent: float) -> float:
    """A percentile, interpolated linearly where the fingerprint has only those around it."""
    known = {0.0: measured.min, 50.0: measured.median, 100.0: measured.max}
    known |= {float(at): value for at, value in measured.percentiles.items()}
    return float(np.interp(percent, sorted(known), [known[at] for at in sorted(known)]))


def rounded(value: float) -> float:
    """The number as a plan has it."""
    return float(f"{value:.{DIGITS}g}")


def times(values: Sequence[float]) -> str:
    """Numbers per axis for people: 40 x 56 x 40."""
    return " x ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
