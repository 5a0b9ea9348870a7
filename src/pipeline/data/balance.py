"""Weights that give rare classes their say: in the loss, and in how often a case is drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

Rule = Literal["none", "inverse", "effective"]


def class_weights(counts: Sequence[int], rule: Rule | Sequence[float], *, beta: float) -> list[float] | None:
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
        weights[known] = (1 - beta) / -np.expm1(occurring[known] * np.log(beta))
    return [float(weight) for weight in weights * known.sum() / weights.sum()]


def weights_for_cases(
    present: Sequence[Collection[int]], classes: int, rule: Rule | Mapping[int, float], *, beta: float
) -> list[float]:
    """The weight of each of ``classes`` classes, by which cases are drawn.

    ``present``: the classes of each training case. ``none``: 1 each. ``inverse`` and ``effective`` as in class_weights,
    from the number of cases that have the class. A mapping from class to weight is taken as it is, and a class that
    it leaves out weighs 1.
    """
    if isinstance(rule, Mapping):
        return [float(rule.get(index, 1.0)) for index in range(classes)]
    counts = np.bincount([index for found in present for index in found], minlength=classes)
    return class_weights(counts.tolist(), rule, beta=beta) or [1.0] * classes


def draw_weights(
    present: Sequence[Collection[int]], of_class: Sequence[float], *, background: int | None
) -> list[float]:
    """The weight of each case: that of the heaviest class in it (Gupta et al. 2019, LVIS: repeat factors).

    ``background``: the class that counts only in a case that has no other. A case without any class weighs 0.
    """
    return [max((of_class[index] for index in set(found) - {background} or found), default=0.0) for found in present]
