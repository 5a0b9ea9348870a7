"""Which fold a group of cases goes to: even sizes and even strata, without parting what belongs together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def assign_evenly(
    weights: np.ndarray, count: int, rng: np.random.Generator, *, shares: Sequence[float] | None = None
) -> np.ndarray:
    """A fold for each group, (n,) int: greedy, the groups with most cases and of rare strata first, else at random.

    ``weights``: (n, strata), cases of each group in each stratum; every group has a case. ``shares``: how large each
    of the ``count`` folds is to be, None for alike. Each group goes to the fold where the sum over strata, and over
    all cases, of (share that the fold holds)^2 / (its share) grows least, which is Webster's rule of apportionment
    where groups are alike. No fold stays empty where there are ``count`` groups, and the sizes of folds that are to
    be alike differ by the largest group at most, whatever that costs the strata.
    """
    sizes = weights.sum(axis=1)
    totals = np.append(weights.sum(axis=0), sizes.sum())
    rarity = (weights / totals[:-1]).max(axis=1)
    shuffled = rng.permutation(len(weights))
    order = shuffled[np.lexsort((-rarity[shuffled], -sizes[shuffled]))]
    wanted = np.ones(count) if shares is None else np.asarray(shares, float) * count
    rows = np.column_stack([weights, sizes])
    folds = _deal(rows, order, totals, wanted, np.inf, rng)
    if shares is None and np.ptp(np.bincount(folds, sizes, minlength=count)) > sizes.max():
        folds = _deal(rows, order, totals, wanted, sizes.max(), rng)
    return folds


def _deal(
    rows: np.ndarray, order: np.ndarray, totals: np.ndarray, wanted: np.ndarray, ahead: float, rng: np.random.Generator
) -> np.ndarray:
    """Deal groups out in ``order``; no fold gets more than ``ahead`` cases ahead of the smallest."""
    held, number_in = np.zeros((len(wanted), len(totals))), np.zeros(len(wanted), dtype=int)
    folds = np.zeros(len(rows), dtype=int)
    empty = len(wanted)
    for place, number in enumerate(order):
        row = rows[number]
        cost = ((2 * held * row + row**2) / totals**2).sum(axis=1) / wanted
        if 0 < empty == len(order) - place:  # as many groups are left as folds are empty
            cost[number_in > 0] = np.inf
        if ahead < np.inf:
            cost[held[:, -1] + row[-1] > held[:, -1].min() + ahead] = np.inf
        least = np.flatnonzero(cost <= cost.min() + 1e-12)
        fold = least[rng.integers(len(least))] if len(least) > 1 else least[0]
        empty -= int(number_in[fold] == 0)
        number_in[fold] += 1
        folds[number] = fold
        held[fold] += row
    return folds
