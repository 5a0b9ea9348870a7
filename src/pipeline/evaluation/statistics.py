"""Means with a confidence interval whose sampling unit is the patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]

WEIGHTS_AT_ONCE = 4_000_000  # keeps the case weights of a chunk of resamples near 32 MB, however many cases there are


@dataclass(frozen=True)
class Estimate:
    """Point values with the lower and upper ends of their intervals: three arrays of one shape.

    ``draws``: the value in each resample, (resamples, ...); none where no interval is.
    """

    point: FloatArray
    low: FloatArray
    high: FloatArray
    draws: FloatArray


def patient_bootstrap(
    patients: Sequence[str], statistic: Statistic, *, resamples: int, seed: int, level: float = 0.95
) -> Estimate:
    """Estimate a statistic and its percentile interval by resampling whole patients with replacement.

    patients: the patient of each of n cases. statistic: takes case weights (r, n), one row per resample, and returns
    (r, ...); a patient drawn twice gives its cases weight 2. Resamples in which a value is NaN do not count for the
    interval of that value. With fewer than two patients the interval is NaN. The result depends on the seed and the
    patients' names, not on the order of the cases.

    Cluster bootstrap: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8; percentile
    interval: section 5.3.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    point = statistic(np.ones((1, len(owner))))[0]
    if len(names) < 2:
        return Estimate(point, np.full_like(point, np.nan), np.full_like(point, np.nan), point[None][:0])
    draws = np.concatenate([statistic(weights) for weights in case_weights(owner, len(names), resamples, seed)])
    tail = (1.0 - level) / 2.0
    low, high = _quantiles(draws.reshape(resamples, -1), [tail, 1.0 - tail])
    return Estimate(point, low.reshape(point.shape), high.reshape(point.shape), draws)


def weighted_means(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Average each column of values under each row of weights, NaN values left out.

    values: (n, k). weights: (r, n). Returns (r, k); NaN where no value has weight.
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    # einsum, not a matrix product: its rounding does not depend on the number of threads.
    sums = [np.einsum("rn,n->r", weights, column) for column in filled.T]
    totals = [np.einsum("rn,n->r", weights, column.astype(float)) for column in known.T]
    return divide(np.stack(sums, axis=1), np.stack(totals, axis=1))


def class_mean(per_class: FloatArray, defined: NDArray[np.bool_]) -> FloatArray:
    """Average over the classes that the full data define, NaN in a resample that lost one of them.

    per_class: (..., C). defined: (C,) bool. Leaving a lost class out instead would make the mean of that resample
    another quantity (that of the easier classes) and pull the interval.
    """
    if not defined.any():
        return np.full(per_class.shape[:-1], np.nan)
    mean: FloatArray = per_class[..., defined].mean(axis=-1)
    return mean


def divide(numerator: FloatArray, denominator: FloatArray, zero: float = float("nan")) -> FloatArray:
    """Divide element by element, giving ``zero`` where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, zero), where=denominator != 0)


def case_weights(
    owner: NDArray[np.intp], n_patients: int, resamples: int, seed: int, *, at_once: int | None = None
) -> Iterator[FloatArray]:
    """How often each case is drawn, (r, n) a chunk of resamples: whole patients with replacement.

    ``owner``: index of each case's patient. The draws do not depend on ``at_once``, the most resamples of a chunk.
    """
    rng = np.random.default_rng(seed)
    step = max(1, min(WEIGHTS_AT_ONCE // len(owner), at_once or resamples))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(n_patients, size=(rows, n_patients)) + n_patients * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n_patients).reshape(rows, n_patients)
        yield times[:, owner].astype(float)


def _quantiles(draws: FloatArray, at: Sequence[float]) -> FloatArray:
    """Quantiles of each column without its NaNs: (len(at), k)."""
    ends = np.full((len(at), draws.shape[1]), np.nan)
    for index, column in enumerate(draws.T):
        known = column[~np.isnan(column)]
        if len(known):
            ends[:, index] = np.quantile(known, at)
    return ends
