"""Order of cases: complete passes, no state, the same global batch for any number of processes."""

from collections import Counter

import pytest

from pipeline.data.order import BLOCK, CaseOrder, EpochBatches, WeightedOrder, groups_by_class
from pipeline.randomness import draw_seed


def indices(batches: EpochBatches, epoch: int) -> list[int]:
    batches.set_epoch(epoch)
    return [draw.case for batch in batches for draw in batch]


def test_every_case_once_per_pass() -> None:
    order = CaseOrder((tuple(range(7)),), seed=3)
    for turn in range(3):
        assert sorted(order.cases(7 * turn, 7 * turn + 7)) == list(range(7))
    assert order.cases(0, 7) != order.cases(7, 14)


def test_a_place_does_not_depend_on_where_counting_began() -> None:
    order = CaseOrder((tuple(range(5)),), seed=1)
    assert order.cases(0, 40)[23:31] == order.cases(23, 31)


def test_epochs_continue_the_passes() -> None:
    batches = EpochBatches(CaseOrder((tuple(range(10)),), 0), batches=3, batch_size=2)
    drawn = [index for epoch in range(5) for index in indices(batches, epoch)]
    assert len(drawn) == 30
    assert Counter(drawn) == Counter(dict.fromkeys(range(10), 3))


def test_classes_in_turn_are_balanced() -> None:
    groups = groups_by_class([0] * 9 + [1] * 3)
    assert groups == (tuple(range(9)), (9, 10, 11))
    drawn = CaseOrder(groups, 0).cases(0, 36)
    assert sum(index < 9 for index in drawn) == 18
    assert Counter(index for index in drawn if index >= 9) == {9: 6, 10: 6, 11: 6}


def test_two_processes_share_the_global_batch() -> None:
    order = CaseOrder((tuple(range(12)),), 5)
    one = EpochBatches(order, batches=3, batch_size=4)
    halves = [EpochBatches(order, batches=3, batch_size=2, process=rank, processes=2) for rank in range(2)]
    together = [first + second for first, second in zip(*halves, strict=True)]
    assert together == list(one)


def test_draw_seed_depends_on_every_argument() -> None:
    seeds = {draw_seed(s, p, a, b) for s in (0, 1) for p in ("augment", "patch") for a in (0, 1) for b in (0, 1)}
    assert len(seeds) == 16
    assert draw_seed(0, "augment", 1, 2) == draw_seed(0, "augment", 1, 2)


def test_a_case_stands_in_the_group_of_each_class_it_has() -> None:
    groups = groups_by_class([{0, 2}, {0}, {0, 1, 2}, set()])
    assert groups == ((0, 1, 2), (2,), (0, 2))
    drawn = CaseOrder(groups, 0).cases(0, 18)
    assert drawn[1::3] == [2] * 6
    assert Counter(drawn[2::3]) == {0: 3, 2: 3}


def test_weighted_cases_are_drawn_in_proportion() -> None:
    drawn = Counter(WeightedOrder((1.0, 0.0, 3.0, 6.0, 0.0), 4).cases(0, 20000))
    assert set(drawn) == {0, 2, 3}
    # within five standard deviations of 20000 draws
    assert abs(drawn[0] - 2000) < 212 and abs(drawn[2] - 6000) < 324 and abs(drawn[3] - 12000) < 346


def test_a_weighted_place_does_not_depend_on_where_counting_began() -> None:
    order = WeightedOrder((1.0, 2.0, 3.0), 1)
    drawn = order.cases(0, 3 * BLOCK)
    assert len(drawn) == 3 * BLOCK
    for first, last in ((0, 5), (BLOCK - 3, BLOCK + 4), (BLOCK, BLOCK + 1), (7, 2 * BLOCK), (2 * BLOCK, 3 * BLOCK)):
        assert WeightedOrder((1.0, 2.0, 3.0), 1).cases(first, last) == drawn[first:last]
    assert WeightedOrder((1.0, 2.0, 3.0), 2).cases(0, 50) != drawn[:50]
    assert order.cases(5, 5) == []


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -0.5)])
def test_weights_that_draw_nothing(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must not be negative, nor all zero"):
        WeightedOrder(weights, 0)
