"""Whether paired differences are more than chance: p-values, and their correction where there are several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def signed_rank_p(differences: FloatArray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences of independent units are symmetric about zero.

    differences: (n,), one per patient; NaN is left out, and so is 0 (Wilcoxon's own rule). 1 where all are 0, NaN
    where there are none. Exact up to 50 differences, with ties among them up to 13; the normal approximation beyond.

    Source: Wilcoxon, Biometrics Bulletin 1945; scipy.stats.wilcoxon.
    """
    from scipy.stats import wilcoxon

    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    moved = known[known != 0]
    return float(wilcoxon(moved, zero_method="wilcox", method="auto").pvalue) if len(moved) else 1.0


def bootstrap_p(draws: FloatArray) -> float:
    """Two-sided p that a statistic is zero: twice the share of its bootstrap draws on the rarer side of zero.

    It is the level at which the percentile interval just touches zero. draws: (r,), NaN left out; the point estimate
    counts as one draw more on either side, so that p is never 0. NaN without draws.

    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, sections 4.2.3 and 5.3.
    """
    known = draws[~np.isnan(draws)]
    if not len(known):
        return float("nan")
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2.0 * (rarer + 1) / (len(known) + 1))


def holm(p: Sequence[float]) -> list[float]:
    """P-values that hold for all tests together (family-wise error), in the order given; NaN stays and is no test.

    Source: Holm, Scandinavian Journal of Statistics 1979, the step-down procedure.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()
