from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from pipeline.evaluation.classification_metrics import (
    PER_CLASS_METRICS,
    classification_metrics,
    confusion_matrix,
    per_class_scores,
)


def predictions(n, n_classes, seed, decimals=None):
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    probabilities = rng.dirichlet(np.ones(n_classes), n)
    probabilities[np.arange(n), truth] += 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return truth, probabilities if decimals is None else probabilities.round(decimals)


def names(n_classes):
    return [f"class {index}" for index in range(n_classes)]


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("decimals", [None, 1])  # one decimal: most scores are ties
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_scikit_learn(n_classes, decimals, weighted):
    truth, probabilities = predictions(120, n_classes, n_classes, decimals)
    weights = np.random.default_rng(9).integers(0, 4, 120).astype(float) if weighted else None
    ours = classification_metrics(truth, probabilities, weights, class_names=names(n_classes))
    predicted = probabilities.argmax(axis=1)
    assert ours["accuracy"]["mean"] == pytest.approx(sk.accuracy_score(truth, predicted, sample_weight=weights))
    balanced = sk.balanced_accuracy_score(truth, predicted, sample_weight=weights)
    assert ours["balanced_accuracy"]["mean"] == pytest.approx(balanced)
    of_class = sk.precision_recall_fscore_support(truth, predicted, sample_weight=weights, zero_division=0)
    for metric, values in zip(("precision", "recall", "f1"), of_class, strict=False):
        assert list(ours[metric]["per_class"].values()) == pytest.approx(list(values))
        assert ours[metric]["mean"] == pytest.approx(values.mean())
    for metric, reference in (("auroc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
        values = [reference(truth == c, probabilities[:, c], sample_weight=weights) for c in range(n_classes)]
        assert list(ours[metric]["per_class"].values()) == pytest.approx(values)
        assert ours[metric]["mean"] == pytest.approx(np.mean(values))


def test_two_classes_give_the_binary_auroc():
    truth, probabilities = predictions(80, 2, 1)
    ours = classification_metrics(truth, probabilities, class_names=names(2))["auroc"]
    assert ours["mean"] == pytest.approx(sk.roc_auc_score(truth, probabilities[:, 1]))


def test_ranking_by_hand():
    # Scores of the second class 0.9+ 0.6- 0.6+ 0.1-: of the 4 pairs 3 are right and one is a tie.
    probabilities = np.array([[0.1, 0.9], [0.4, 0.6], [0.4, 0.6], [0.9, 0.1]])
    ours = classification_metrics(np.array([1, 0, 1, 0]), probabilities, class_names=("no", "yes"))
    assert ours["auroc"]["per_class"]["yes"] == pytest.approx(3.5 / 4)
    assert ours["average_precision"]["per_class"]["yes"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_integer_weights_are_repeated_cases():
    truth, probabilities = predictions(40, 3, 4, 1)
    times = np.random.default_rng(5).integers(0, 3, 40)
    repeated = classification_metrics(truth.repeat(times), probabilities.repeat(times, axis=0), class_names=names(3))
    weighted = classification_metrics(truth, probabilities, times.astype(float), class_names=names(3))
    for metric, entry in weighted.items():
        assert entry["mean"] == pytest.approx(repeated[metric]["mean"])


def test_many_weightings_at_once():
    truth, probabilities = predictions(30, 3, 6)
    weights = np.random.default_rng(7).integers(0, 3, (4, 30)).astype(float)
    together = per_class_scores(truth, probabilities, weights)
    for row in range(4):
        alone = per_class_scores(truth, probabilities, weights[row : row + 1])
        for metric in PER_CLASS_METRICS:
            np.testing.assert_allclose(together[metric][row], alone[metric][0])


def test_absent_classes():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    ours = classification_metrics(np.array([0, 0, 1, 1]), probabilities, class_names=("a", "b", "never"))
    for metric in PER_CLASS_METRICS:
        entry = ours[metric]
        assert math.isnan(entry["per_class"]["never"])
        assert entry["mean"] == pytest.approx((entry["per_class"]["a"] + entry["per_class"]["b"]) / 2)


def test_a_class_never_predicted_has_precision_zero():
    probabilities = np.array([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    ours = classification_metrics(np.array([0, 0, 1]), probabilities, class_names=("a", "b"))
    assert ours["precision"]["per_class"]["b"] == ours["recall"]["per_class"]["b"] == ours["f1"]["per_class"]["b"] == 0
    one_sided = classification_metrics(np.array([0, 0, 0]), probabilities, class_names=("a", "b"))
    assert math.isnan(one_sided["auroc"]["mean"])
    assert one_sided["accuracy"]["mean"] == 1


def test_order_of_cases_and_classes_does_not_matter():
    truth, probabilities = predictions(50, 3, 8, 1)
    expected = classification_metrics(truth, probabilities, class_names=("a", "b", "c"))
    order = np.random.default_rng(0).permutation(50)
    shuffled = classification_metrics(truth[order], probabilities[order], class_names=("a", "b", "c"))
    swapped = classification_metrics(2 - truth, probabilities[:, ::-1], class_names=("c", "b", "a"))
    for metric in ("auroc", "average_precision"):
        assert swapped[metric]["per_class"] == pytest.approx(expected[metric]["per_class"])
        assert shuffled[metric]["mean"] == pytest.approx(expected[metric]["mean"])


def test_confusion_matrix():
    truth, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    ours = confusion_matrix(truth, predicted, 4)
    np.testing.assert_array_equal(ours, sk.confusion_matrix(truth, predicted, labels=range(4)))
    assert ours[2].tolist() == [1, 0, 2, 0]


def test_sure_predictions_rank_both_classes_alike() -> None:
    # As float32 softmax gives them: the first probability is rounded to 1 for all cases, the second is not.
    second = np.array([1e-16, 2e-14, 3e-13, 4e-12])
    probabilities = np.stack((np.ones(4), second), axis=1)
    scores = classification_metrics(np.array([0, 0, 1, 1]), probabilities, class_names=["normal", "sick"])
    assert scores["auroc"]["per_class"] == {"normal": 1.0, "sick": 1.0}
    assert scores["average_precision"]["per_class"] == {"normal": 1.0, "sick": 1.0}
