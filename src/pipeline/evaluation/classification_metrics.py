"""How well predicted probabilities meet the true classes, per class (one against the rest) and over all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.statistics import class_mean, divide

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]

PER_CLASS_METRICS = ("precision", "recall", "f1", "auroc", "average_precision")


def classification_metrics(
    truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None, *, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Score cases by accuracy, balanced accuracy, precision, recall, F1, AUROC and average precision.

    truth: (n,) class indices. probabilities: (n, C). weights: (n,) of the cases, None for 1 each. The predicted class
    is the most probable one. Returns ``{metric: {"mean", "per_class": {name: value}}}``: each class against the rest
    and their plain mean; for two classes the AUROC of both is the usual binary one. Accuracy and balanced accuracy
    (mean recall) have no values per class.

    A value is NaN, and left out of the mean, where the class has no weight in the truth (recall, AUROC, average
    precision; AUROC also where all have the class) or neither in truth nor prediction (precision, F1). A class that
    is there but never predicted has precision 0. Otherwise the values are those of scikit-learn.
    """
    row = np.ones((1, len(truth))) if weights is None else np.asarray(weights, float)[None]
    per_class = per_class_scores(truth, probabilities, row)
    result: dict[str, dict[str, Any]] = {
        "accuracy": {"mean": float(accuracy(truth, probabilities, row)[0]), "per_class": {}}
    }
    recall = per_class["recall"]
    result["balanced_accuracy"] = {"mean": float(class_mean(recall, ~np.isnan(recall[0]))[0]), "per_class": {}}
    for name, values in per_class.items():
        result[name] = {
            "mean": float(class_mean(values, ~np.isnan(values[0]))[0]),
            "per_class": dict(zip(class_names, values[0].tolist(), strict=True)),
        }
    return result


def confusion_matrix(truth: IntArray, predicted: IntArray, n_classes: int) -> NDArray[np.int64]:
    """Count cases by (true class, predicted class): (C, C), truth along the rows as in scikit-learn."""
    counts = np.bincount(np.asarray(truth) * n_classes + np.asarray(predicted), minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def accuracy(truth: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
    """Give the share of cases whose most probable class is the true one, under each row of weights: (r,)."""
    return divide(weights @ is_right(truth, probabilities), weights.sum(axis=1))


def is_right(truth: IntArray, probabilities: FloatArray) -> FloatArray:
    """Whether the most probable class of each case is the true one: (n,), 0 or 1."""
    right: FloatArray = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    return right


def brier_scores(truth: IntArray, probabilities: FloatArray) -> FloatArray:
    """Give the squared error of each case's probabilities, summed over classes: (n,), 0 to 2, lower is better.

    Source: Brier, Monthly Weather Review 1950.
    """
    scores: FloatArray = np.square(probabilities - np.eye(probabilities.shape[1])[truth]).sum(axis=1)
    return scores


def per_class_scores(truth: IntArray, probabilities: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Score each class against the rest under many weightings at once.

    truth: (n,). probabilities: (n, C). weights: (r, n), one row per resample. Returns PER_CLASS_METRICS, each (r, C).
    """
    classes = np.arange(probabilities.shape[1])
    is_true = truth[:, None] == classes
    is_predicted = probabilities.argmax(axis=1)[:, None] == classes
    n_hit, n_true, n_predicted = weights @ (is_true & is_predicted), weights @ is_true, weights @ is_predicted
    precision = divide(n_hit, n_predicted)
    precision[(n_predicted == 0) & (n_true > 0)] = 0.0
    auroc, average_precision = np.empty_like(n_hit), np.empty_like(n_hit)
    scores_of = ranking(probabilities)
    for index in classes:
        auroc[:, index], average_precision[:, index] = _ranking_scores(is_true[:, index], scores_of[:, index], weights)
    scores = (precision, divide(n_hit, n_true), divide(2 * n_hit, n_true + n_predicted), auroc, average_precision)
    return dict(zip(PER_CLASS_METRICS, scores, strict=True))


def ranking(probabilities: FloatArray) -> FloatArray:
    """What the cases are ranked by, per class: probabilities (n, C), of two classes the logarithm of their ratio.

    A probability near 1 is rounded to 1 long before the other one reaches 0; the ratio keeps such cases apart, and
    the order of one class is that of the other, reversed.
    """
    if probabilities.shape[1] != 2:
        return probabilities
    logarithms = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float64).tiny))
    first = logarithms[:, 0] - logarithms[:, 1]
    return np.stack((first, -first), axis=1)


def _ranking_scores(
    positive: NDArray[np.bool_], score: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Area under the ROC curve (trapezoids) and average precision (steps), ties sharing one threshold: (r,) each."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    ranked = weights[:, order]
    hits = np.cumsum(ranked * positive[order], axis=1)[:, last_of_tie]
    alarms = np.cumsum(ranked * ~positive[order], axis=1)[:, last_of_tie]
    new_hits = np.diff(hits, axis=1, prepend=0.0)
    new_alarms = np.diff(alarms, axis=1, prepend=0.0)
    n_positive, n_negative = hits[:, -1], alarms[:, -1]
    auroc = divide((new_alarms * (hits - new_hits / 2)).sum(axis=1), n_positive * n_negative)
    precision = divide(hits, hits + alarms, zero=0.0)
    return auroc, divide((new_hits * precision).sum(axis=1), n_positive)
