"""Weights that give rare classes their say in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

EFFECTIVE_BETA = 0.9999  # Cui et al. 2019 use 0.9 to 0.9999; the largest for counts in the thousands and more


def class_weights(
    counts: Sequence[int], rule: Literal["none", "inverse", "effective"] | Sequence[float]
) -> list[float] | None:
    """One weight per class, with mean 1; None for ``none``.

    ``counts``: how often each class occurs in the training fold (voxels or cases). ``inverse``: proportional to ``1
    / count``. ``effective``: to ``(1 - beta) / (1 - beta ** count)``, the inverse effective number of samples (Cui
    et al. 2019). A list is taken as it is. A class that does not occur gets weight 0. Raises ValueError for a list
    of another length.
    """
    if rule == "none":
        return None
    if not isinstance(rule, str):
        if len(rule) != len(counts):
            raise ValueError(f"loss.class_weights has {len(rule)} numbers; there are {len(counts)} classes")
        return [float(weight) for weight in rule]
    occurring = np.asarray(counts, dtype=np.float64)
    known = occurring > 0
    weights = np.zeros(len(occurring))
    if rule == "inverse":
        weights[known] = 1 / occurring[known]
    else:
        weights[known] = (1 - EFFECTIVE_BETA) / -np.expm1(occurring[known] * np.log(EFFECTIVE_BETA))
    return [float(weight) for weight in weights * known.sum() / weights.sum()]
