"""Class weights by hand."""

import pytest

from pipeline.data.balance import class_weights, draw_weights, weights_for_cases

BETA = 0.9999


def test_inverse() -> None:
    assert class_weights([30, 10], "inverse", beta=BETA) == pytest.approx([0.5, 1.5])


def test_effective_number_of_samples() -> None:
    def number(n: int) -> float:
        return (1 - BETA**n) / (1 - BETA)

    a, b = 1 / number(50), 1 / number(5000)
    found = class_weights([50, 5000], "effective", beta=BETA)
    assert found == pytest.approx([2 * a / (a + b), 2 * b / (a + b)], rel=1e-6)


def test_beta_leads_from_no_weighting_to_inverse_frequency() -> None:
    # beta 0.5: effective numbers 1 + 1/2 = 1.5 and 1 + 1/2 + 1/4 = 1.75
    assert class_weights([2, 3], "effective", beta=0.5) == pytest.approx([2 * 1.75 / 3.25, 2 * 1.5 / 3.25])
    assert class_weights([10, 40], "effective", beta=1e-9) == pytest.approx([1, 1])
    assert class_weights([10, 40], "effective", beta=1 - 1e-9) == pytest.approx([1.6, 0.4])


def test_absent_class_has_no_weight_and_the_others_mean_one() -> None:
    assert class_weights([30, 0, 10], "inverse", beta=BETA) == pytest.approx([0.5, 0, 1.5])


def test_given_and_none() -> None:
    assert class_weights([1, 2], [0.25, 4], beta=BETA) == [0.25, 4.0]
    assert class_weights([1, 2], "none", beta=BETA) is None
    with pytest.raises(ValueError, match=r"loss.class_weights has 1 numbers; there are 2 classes"):
        class_weights([1, 2], [1.0], beta=BETA)


def test_weights_for_drawing_cases_of_one_class_each() -> None:
    present = [{0}, {0}, {0}, {1}]
    assert weights_for_cases(present, 2, "inverse", beta=BETA) == pytest.approx([0.5, 1.5])
    assert weights_for_cases(present, 2, "none", beta=BETA) == [1, 1]
    assert weights_for_cases(present, 3, {1: 4.0}, beta=BETA) == [1, 4, 1]
    assert draw_weights(present, [0.5, 1.5], background=None) == [0.5, 0.5, 0.5, 1.5]


def test_a_case_weighs_as_its_heaviest_class() -> None:
    present = [{0, 1}, {0, 1, 2}, {0, 1}, {0}]  # background, lung, tumour
    of_class = weights_for_cases(present, 3, "inverse", beta=BETA)
    # 1/4, 1/3 and 1 over their mean 19/36
    assert of_class == pytest.approx([9 / 19, 12 / 19, 36 / 19])
    assert draw_weights(present, of_class, background=0) == pytest.approx([12 / 19, 36 / 19, 12 / 19, 9 / 19])
    assert draw_weights([{0, 1}, {0}, set()], [1, 0.5, 1], background=0) == [0.5, 1, 0]
