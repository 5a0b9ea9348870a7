"""Class weights by hand."""

import pytest

from pipeline.data.balance import EFFECTIVE_BETA, class_weights


def test_inverse() -> None:
    assert class_weights([30, 10], "inverse") == pytest.approx([0.5, 1.5])


def test_effective_number_of_samples() -> None:
    def number(n: int) -> float:
        return (1 - EFFECTIVE_BETA**n) / (1 - EFFECTIVE_BETA)

    a, b = 1 / number(50), 1 / number(5000)
    assert class_weights([50, 5000], "effective") == pytest.approx([2 * a / (a + b), 2 * b / (a + b)], rel=1e-6)


def test_absent_class_has_no_weight_and_the_others_mean_one() -> None:
    assert class_weights([30, 0, 10], "inverse") == pytest.approx([0.5, 0, 1.5])


def test_given_and_none() -> None:
    assert class_weights([1, 2], [0.25, 4]) == [0.25, 4.0]
    assert class_weights([1, 2], "none") is None
    with pytest.raises(ValueError, match=r"loss.class_weights has 1 numbers; there are 2 classes"):
        class_weights([1, 2], [1.0])
