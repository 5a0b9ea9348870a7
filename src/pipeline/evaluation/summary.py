"""The numbers of a run: cases pooled over the folds, averaged, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.classification_metrics import (
    PER_CLASS_METRICS,
    accuracy,
    classification_metrics,
    confusion_matrix,
    per_class_scores,
)
from pipeline.evaluation.segmentation_metrics import EMPTY_MASK_RULE
from pipeline.evaluation.statistics import Statistic, class_mean, divide, patient_bootstrap, weighted_means

FloatArray = NDArray[np.float64]

SEGMENTATION_METRICS = ("dice", "hd95_mm", "surface_dice", "volume_error_ml", "volume_error_percent")
CLASSIFICATION_METRICS = ("accuracy", "balanced_accuracy", *PER_CLASS_METRICS)


# Keys of summary.json that say when and where, not what.
CIRCUMSTANCES = ("run_dir", "mlflow", "seconds")


def comparable(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of summary.json is the same whenever and wherever the same training is repeated."""
    kept = {key: value for key, value in summary.items() if key not in CIRCUMSTANCES}
    folds = summary.get("folds", [])
    return kept | {"folds": [{key: fold[key] for key in fold if key not in CIRCUMSTANCES} for fold in folds]}


def summarise(
    task: str, table: pd.DataFrame, class_names: Sequence[str], *, folds: Sequence[int], resamples: int, seed: int
) -> dict[str, Any]:
    """``summarise_segmentation`` (with the empty-mask rule in words) or ``summarise_classification``."""
    if task == "classification":
        return summarise_classification(table, class_names, folds=folds, resamples=resamples, seed=seed)
    return summarise_segmentation(table, folds=folds, resamples=resamples, seed=seed) | {"empty_masks": EMPTY_MASK_RULE}


def summarise_segmentation(
    rows: pd.DataFrame, *, folds: Sequence[int], resamples: int, seed: int, level: float = 0.95
) -> dict[str, Any]:
    """Summarise the rows of all cases.

    rows: one row per case and class as ``segmentation_case_metrics`` gives them, with ``case_id``, ``patient_id`` and
    ``fold``. Returns ``{"metrics": {name: {"mean", "ci95", "per_class", "per_fold"}}, "counts": {class: {...}}}``,
    ready for JSON (NaN is None). ``mean`` is the mean over classes of the mean over all cases, ``per_fold`` the same
    of each fold in turn. A case that several folds validated (repeated cross-validation) enters once, by the mean of
    its values. Volume errors enter by their absolute value. ``counts`` has, per class and over all folds, the cases
    scored, true negatives (left out), missed (Dice 0) and false positives (Dice 0).

    Raises ValueError if a case stands twice in one fold.
    """
    if rows.duplicated(["fold", "case_id", "class"]).any():
        raise ValueError("a case stands twice in one fold")
    classes = list(dict.fromkeys(rows["class"]))
    values, scored = case_values(rows, classes)
    fold_of = scored["fold"].to_numpy()

    cases = scored.drop_duplicates("case_id")
    patients = cases["patient_id"].astype(str).to_numpy()
    of_cases = mean_of_repeats(values, scored.groupby("case_id", sort=False).ngroup().to_numpy())
    known = ~np.isnan(of_cases)
    estimate = patient_bootstrap(patients, class_means(of_cases), resamples=resamples, seed=seed, level=level)
    # A class that one patient alone has does not vary between resamples: no interval, rather than one of width 0.
    lone = [[len(set(patients[of_class])) < 2 for of_class in of_metric.T] for of_metric in known.swapaxes(0, 1)]
    estimate.low[:, 1:][np.array(lone)] = np.nan
    estimate.high[:, 1:][np.array(lone)] = np.nan
    metrics = {}
    for index, metric in enumerate(SEGMENTATION_METRICS):
        per_fold = [
            _nanmean(_nanmean(values[fold_of == fold, index, number]) for number in range(len(classes)))
            for fold in folds
        ]
        ends = np.stack([estimate.point[index], estimate.low[index], estimate.high[index]], axis=1)
        metrics[metric] = _entry(ends, classes, per_fold)
    return {"metrics": metrics, "counts": {name: _count(rows[rows["class"] == name]) for name in classes}}


def case_values(rows: pd.DataFrame, classes: Sequence[str]) -> tuple[FloatArray, pd.DataFrame]:
    """SEGMENTATION_METRICS of every fold and case, (n, metrics, C), NaN where there is none, and the first row of each.

    rows: as in ``summarise_segmentation``. Volume errors are absolute.
    """
    case = rows.groupby(["fold", "case_id"], sort=False, dropna=False).ngroup().to_numpy()
    scored = rows.drop_duplicates(["fold", "case_id"])
    column = rows["class"].map({name: index for index, name in enumerate(classes)}).to_numpy()
    values = np.full((len(scored), len(SEGMENTATION_METRICS), len(classes)), np.nan)
    for index, metric in enumerate(SEGMENTATION_METRICS):
        # Errors of opposite sign must not cancel; the other metrics have no sign.
        values[case, index, column] = rows[metric].astype(float).abs()
    return values, scored


def summarise_classification(
    table: pd.DataFrame,
    class_names: Sequence[str],
    *,
    folds: Sequence[int],
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, Any]:
    """Summarise the predictions of all cases.

    table: one row per case with ``patient_id``, ``fold``, ``target`` (class name) and one column of probability per
    class name; with a column ``repeat`` one row per case and repeat. Every metric is then computed in each repeat and
    averaged over them: averaged probabilities would be those of an ensemble that is better than any of its models.
    Returns ``{"metrics": {...}, "confusion_matrix": {"classes", "counts"}}`` in the form of
    ``summarise_segmentation``; ``counts[i][j]`` is the number of cases of class i predicted as class j, over all
    repeats.

    Raises ValueError if a target is not among the class names.
    """
    names = list(class_names)
    unknown = sorted(set(table["target"]) - set(names))
    if unknown:
        raise ValueError(f"targets {unknown} are not among the classes {names}")
    truth = table["target"].map({name: index for index, name in enumerate(names)}).to_numpy(np.int64)
    probabilities = table[names].to_numpy(float)

    repeat_of = table["repeat"].to_numpy() if "repeat" in table else np.zeros(len(table))
    statistic = mean_score_of_repeats(truth, probabilities, repeat_of)
    patients = table["patient_id"].astype(str).to_numpy()
    estimate = patient_bootstrap(patients, statistic, resamples=resamples, seed=seed, level=level)
    fold_of = table["fold"].to_numpy()
    by_fold = [
        classification_metrics(truth[fold_of == fold], probabilities[fold_of == fold], class_names=names)
        for fold in folds
    ]
    metrics = {}
    for index, metric in enumerate(CLASSIFICATION_METRICS):
        ends = np.stack([estimate.point[index], estimate.low[index], estimate.high[index]], axis=1)
        metrics[metric] = _entry(
            ends, names if metric in PER_CLASS_METRICS else (), [fold[metric]["mean"] for fold in by_fold]
        )
    counts = confusion_matrix(truth, probabilities.argmax(axis=1), len(names))
    return {"metrics": metrics, "confusion_matrix": {"classes": names, "counts": counts.tolist()}}


def mean_score_of_repeats(truth: NDArray[np.int64], probabilities: FloatArray, repeat_of: NDArray[Any]) -> Statistic:
    """CLASSIFICATION_METRICS under weights of the rows, mean over repeats: (r, metrics, 1 + C), classes' mean first.

    truth: (n,) class indices. probabilities: (n, C). repeat_of: (n,) the repeat of each row.
    """
    parts = [np.flatnonzero(repeat_of == repeat) for repeat in np.unique(repeat_of)]
    in_repeat = [_scores_of(truth[rows], probabilities[rows]) for rows in parts]
    ones = [scores(np.ones((1, len(rows)))) for scores, rows in zip(in_repeat, parts, strict=True)]
    known = ~np.isnan(np.stack(ones))  # (repeats, 1, metrics, 1 + C)

    def statistic(weights: FloatArray) -> FloatArray:
        values = np.stack([scores(weights[:, rows]) for scores, rows in zip(in_repeat, parts, strict=True)])
        return divide(np.where(known, values, 0.0).sum(axis=0), np.broadcast_to(known.sum(axis=0), values.shape[1:]))

    return statistic


def _scores_of(truth: NDArray[np.int64], probabilities: FloatArray) -> Statistic:
    """CLASSIFICATION_METRICS of these rows, mean over classes first, under weights of them: (r, metrics, 1 + C)."""
    everything = per_class_scores(truth, probabilities, np.ones((1, len(truth))))
    defined = np.stack([~np.isnan(everything[name][0]) for name in PER_CLASS_METRICS])

    def statistic(weights: FloatArray) -> FloatArray:
        scores = per_class_scores(truth, probabilities, weights)
        per_class = np.stack([scores[name] for name in PER_CLASS_METRICS], axis=1)
        overall = np.full((len(weights), 2, 1 + probabilities.shape[1]), np.nan)
        overall[:, 0, 0] = accuracy(truth, probabilities, weights)
        overall[:, 1, 0] = class_mean(scores["recall"], defined[PER_CLASS_METRICS.index("recall")])
        return np.concatenate([overall, _with_class_mean(per_class, defined)], axis=1)

    return statistic


def mean_of_repeats(values: FloatArray, case: NDArray[np.intp]) -> FloatArray:
    """Mean over the rows of each case, NaN left out: (n, ...) and the case of each row -> (cases, ...)."""
    known = ~np.isnan(values)
    sums = np.zeros((case.max(initial=-1) + 1, *values.shape[1:]))
    counts = np.zeros_like(sums)
    np.add.at(sums, case, np.where(known, values, 0.0))
    np.add.at(counts, case, known)
    return divide(sums, counts)


def class_means(values: FloatArray) -> Statistic:
    """The weighted mean over cases of ``values`` (n, metrics, C), mean over classes first: (r, metrics, 1 + C)."""
    flat, defined = values.reshape(len(values), -1), np.asarray((~np.isnan(values)).any(axis=0))
    return lambda weights: _with_class_mean(weighted_means(flat, weights).reshape(-1, *defined.shape), defined)


def _with_class_mean(per_class: FloatArray, defined: NDArray[np.bool_]) -> FloatArray:
    """Put the mean over classes before the classes: (r, metrics, C) -> (r, metrics, 1 + C)."""
    means = np.stack([class_mean(per_class[:, index], defined[index]) for index in range(len(defined))], axis=1)
    return np.concatenate([means[:, :, None], per_class], axis=2)


def _entry(values: FloatArray, classes: Sequence[str], per_fold: Sequence[float]) -> dict[str, Any]:
    """One metric as written to JSON; values: (1 + C, 3) of point, low, high, the mean over classes first."""
    mean, *of_classes = [
        {"mean": json_number(point), "ci95": [json_number(low), json_number(high)]}
        for point, low, high in values.tolist()
    ]
    return {
        **mean,
        "per_class": dict(zip(classes, of_classes, strict=False)),
        "per_fold": [json_number(value) for value in per_fold],
    }


def json_number(value: float) -> float | None:
    """Give a float that strict JSON can hold: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def _count(rows: pd.DataFrame) -> dict[str, int]:
    empty = rows["empty"]
    return {
        "n_scored": int((empty != "both").sum()),
        "n_true_negative": int((empty == "both").sum()),
        "n_missed": int((empty == "prediction").sum()),
        "n_false_positive": int((empty == "truth").sum()),
    }


def _nanmean(values: Any) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else float("nan")
