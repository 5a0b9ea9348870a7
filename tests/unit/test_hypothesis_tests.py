"""Tests of paired differences against published examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import rankdata

from pipeline.evaluation.hypothesis_tests import bootstrap_p, holm, signed_rank_p

# Depression of nine patients before and after a tranquilizer: Hollander and Wolfe 1973, Nonparametric Statistical
# Methods, page 29; R's help of wilcox.test gives the one-sided p of 0.01953.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
# Cross- minus self-fertilised maize, eighths of an inch: Darwin 1876; Fisher 1935, The Design of Experiments, table 3.
MAIZE = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]


def by_hand(differences: list[float]) -> float:
    """Two-sided p over all assignments of signs to the ranks."""
    ranks = rankdata(np.abs(differences))
    seen = float(ranks[np.asarray(differences) > 0].sum())
    sums = [sum(rank for rank, plus in zip(ranks, signs, strict=True) if plus)
            for signs in itertools.product((0, 1), repeat=len(ranks))]  # fmt: skip
    least = min(sum(value >= seen for value in sums), sum(value <= seen for value in sums))
    return min(1.0, 2 * least / len(sums))


def test_signed_rank_of_published_examples() -> None:
    assert signed_rank_p(np.subtract(BEFORE, AFTER)) == pytest.approx(2 * 0.01953125)
    assert signed_rank_p(np.asarray(MAIZE, float)) == pytest.approx(0.041259765625)


@pytest.mark.parametrize("differences", [[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, -1.0, 2.0, 2.0, 3.0, -0.5, 4.0]])
def test_signed_rank_by_hand(differences: list[float]) -> None:
    assert signed_rank_p(np.asarray(differences)) == pytest.approx(by_hand(differences))
    assert signed_rank_p(np.asarray([0.0, *differences, np.nan, 0.0])) == pytest.approx(by_hand(differences))


def test_nothing_differs() -> None:
    assert signed_rank_p(np.zeros(7)) == 1.0
    assert math.isnan(signed_rank_p(np.full(3, np.nan)))
    assert bootstrap_p(np.zeros(100)) == 1.0
    assert math.isnan(bootstrap_p(np.empty(0)))


def test_bootstrap_p_is_twice_the_rarer_side() -> None:
    draws = np.array([-1.0] * 4 + [1.0] * 95 + [np.nan])
    assert bootstrap_p(draws) == pytest.approx(2 * 5 / 100)
    assert bootstrap_p(np.ones(99)) == pytest.approx(2 / 100)  # never 0


def test_holm_step_down() -> None:
    # The example of the English Wikipedia, Holm-Bonferroni method: at 0.05 only the first and the last are rejected.
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Benjamini and Hochberg 1995, section 3.2: with control of the family-wise error at 0.05 three are rejected.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
         0.7590, 1.0]  # fmt: skip
    adjusted = holm(p[::-1])[::-1]
    assert sum(value < 0.05 for value in adjusted) == 3
    assert adjusted == pytest.approx([0.0015, 0.0056, 0.0247, 0.114, 0.2211, *[0.278] * 3, 0.3213, *[1.0] * 6])


def test_holm_of_one_of_none_and_of_undefined_ones() -> None:
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    first, second, third = holm([0.02, float("nan"), 0.6])
    assert (first, third) == (0.04, 0.6)
    assert math.isnan(second)
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_signed_rank_holds_its_level() -> None:
    """Of 400 pairs of equal runs about 5 % are told apart."""
    rng = np.random.default_rng(0)
    found = sum(signed_rank_p(rng.normal(size=20)) < 0.05 for _ in range(400))
    assert 10 <= found <= 32
