"""Runs against each other on the same cases: paired differences, with intervals and tests over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.classification_metrics import PER_CLASS_METRICS, brier_scores, is_right
from pipeline.evaluation.hypothesis_tests import bootstrap_p, holm, signed_rank_p
from pipeline.evaluation.statistics import Estimate, Statistic, patient_bootstrap, weighted_means
from pipeline.evaluation.summary import (
    CLASSIFICATION_METRICS,
    SEGMENTATION_METRICS,
    case_values,
    class_means,
    mean_of_repeats,
    mean_score_of_repeats,
)

FloatArray = NDArray[np.float64]

BRIER = "brier"
COMPARED = {"segmentation": SEGMENTATION_METRICS, "classification": (*CLASSIFICATION_METRICS, BRIER)}
LOWER_IS_BETTER = ("hd95_mm", "volume_error_ml", "volume_error_percent", BRIER)
SIGNED_RANK, BOOTSTRAP = "signed-rank", "bootstrap"
NAN = float("nan")


@dataclass(frozen=True)
class Difference:
    """A run minus its reference in one metric, of one class or (None) in the mean over classes; NaN: undefined.

    ``low``, ``high``: interval of ``difference``. ``p_holm``: corrected for everything that was tested at once.
    ``wins``, ``ties``, ``losses``: patients whose mean difference is for the run, zero, or for the reference; None
    where a patient alone has no value. ``only_run``, ``only_reference``: cases with a value in one of the two alone
    (the other found a true negative); they are in none of the other numbers.
    """

    run: str
    reference: str
    metric: str
    of_class: str | None
    patients: int
    cases: int
    run_mean: float
    reference_mean: float
    difference: float
    low: float
    high: float
    test: str
    p: float
    wins: int | None
    ties: int | None
    losses: int | None
    only_run: int = 0
    only_reference: int = 0
    p_holm: float = NAN


@dataclass(frozen=True)
class Comparison:
    """All that was tested together, and the differences of every case behind it.

    ``of_cases``: a row per run, reference, case and (segmentation) class, with a column per metric that a case has.
    """

    rows: tuple[Difference, ...]
    of_cases: pd.DataFrame


@dataclass(frozen=True)
class Analysis:
    """What is computed: ``metrics`` of ``COMPARED``; each class besides their mean; the bootstrap over patients."""

    metrics: tuple[str, ...]
    per_class: bool
    resamples: int
    seed: int
    level: float

    def bootstrap(self, patients: NDArray[np.str_], statistic: Statistic) -> Estimate:
        """Point, interval and draws of a statistic."""
        return patient_bootstrap(list(patients), statistic, resamples=self.resamples, seed=self.seed, level=self.level)


def compare(
    task: str,
    tables: Mapping[str, pd.DataFrame],
    pairs: Sequence[tuple[str, str]],
    classes: Sequence[str],
    how: Analysis,
) -> Comparison:
    """Compare the tables of cases (by the name of their run) of each pair (run, reference).

    All tables have the same cases in the same folds. Differences are taken within a fold, case and class, then
    averaged over repeats; the mean over classes is that of ``summary.json``. A patient with several cases is resampled
    and tested as one. Tests: Wilcoxon's signed-rank test of the patients' mean differences, or where a metric has no
    value per case (AUROC) the bootstrap; Holm's correction over all of them.
    """
    one = compare_classification if task == "classification" else compare_segmentation
    found = [one((run, reference), tables[run], tables[reference], classes, how) for run, reference in pairs]
    rows = [row for of_pair, _ in found for row in of_pair]
    corrected = holm([row.p for row in rows])
    parts = [
        cases.assign(run=run, reference=reference) for (run, reference), (_, cases) in zip(pairs, found, strict=True)
    ]
    table = pd.concat(parts, ignore_index=True)
    first = ["run", "reference"]
    return Comparison(
        tuple(replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)),
        table[[*first, *(name for name in table.columns if name not in first)]],
    )


def compare_segmentation(
    pair: tuple[str, str], run: pd.DataFrame, reference: pd.DataFrame, classes: Sequence[str], how: Analysis
) -> tuple[list[Difference], pd.DataFrame]:
    """Differences of cases and classes; a case in which one of the two has no value has none."""
    keys = ["fold", "case_id", "class"]
    mine, scored = case_values(run.sort_values(keys, kind="stable"), classes)
    theirs, _ = case_values(reference.sort_values(keys, kind="stable"), classes)
    has, had = np.isfinite(mine), np.isfinite(theirs)
    repeated = scored.groupby("case_id", sort=False).ngroup().to_numpy()
    cases = scored.drop_duplicates("case_id")
    patients = cases["patient_id"].astype(str).to_numpy()
    paired = [np.where(has & had, side, np.nan) for side in (mine, theirs)]
    values = mean_of_repeats(paired[0] - paired[1], repeated)
    statistic = class_means(values)
    estimate = how.bootstrap(patients, statistic)
    ones = np.ones((1, len(cases)))
    sides = [class_means(mean_of_repeats(side, repeated))(ones)[0] for side in paired]
    only = [mean_of_repeats(np.where(lone, 1.0, np.nan), repeated) == 1 for lone in (has & ~had, had & ~has)]
    rows = []
    for metric in how.metrics:
        number = SEGMENTATION_METRICS.index(metric)
        for place, name in places(classes, how.per_class):
            chosen = slice(None) if place == 0 else slice(place - 1, place)
            difference = _difference(
                pair, metric, name, estimate, (number, place), sides, patients, values[:, number, chosen]
            )
            lone = [int(found[:, number, chosen].any(axis=1).sum()) for found in only]
            rows.append(replace(difference, only_run=lone[0], only_reference=lone[1]))
    columns = {metric: SEGMENTATION_METRICS.index(metric) for metric in how.metrics}
    parts = [
        cases[["case_id", "patient_id"]].assign(
            **{"class": name}, **{metric: values[:, number, at] for metric, number in columns.items()}
        )
        for at, name in enumerate(classes)
    ]
    return rows, pd.concat(parts, ignore_index=True)


def compare_classification(
    pair: tuple[str, str], run: pd.DataFrame, reference: pd.DataFrame, classes: Sequence[str], how: Analysis
) -> tuple[list[Difference], pd.DataFrame]:
    """Differences of the metrics of all cases, both runs under the same resamples; accuracy and Brier case by case."""
    names = list(classes)
    run, reference = (table.sort_values(["fold", "case_id"], kind="stable") for table in (run, reference))
    truth = run["target"].map({name: index for index, name in enumerate(names)}).to_numpy(np.int64)
    chances = [table[names].to_numpy(float) for table in (run, reference)]
    repeated = run.groupby("case_id", sort=False).ngroup().to_numpy()
    cases = run.drop_duplicates("case_id")
    patients = cases["patient_id"].astype(str).to_numpy()
    scores = [_withbrier_scores(truth, of_side, run["repeat"].to_numpy()) for of_side in chances]
    of_rows = [{"accuracy": is_right(truth, of_side), BRIER: brier_scores(truth, of_side)} for of_side in chances]
    of_cases = {name: mean_of_repeats(of_rows[0][name] - of_rows[1][name], repeated) for name in of_rows[0]}
    estimate = how.bootstrap(run["patient_id"].astype(str).to_numpy(), lambda w: scores[0](w) - scores[1](w))
    ones = np.ones((1, len(truth)))
    sides = [score(ones)[0] for score in scores]
    rows = []
    for metric in how.metrics:
        number = COMPARED["classification"].index(metric)
        # Of two classes the AUROC of one is that of the other: no test twice.
        each = how.per_class and metric in PER_CLASS_METRICS and not (metric == "auroc" and len(names) == 2)
        for place, name in places(names, each):
            values = of_cases[metric][:, None] if metric in of_cases else None
            rows.append(_difference(pair, metric, name, estimate, (number, place), sides, patients, values))
    shown = {name: values for name, values in of_cases.items() if name in how.metrics}
    return rows, cases[["case_id", "patient_id"]].assign(**shown)


def places(classes: Sequence[str], per_class: bool) -> list[tuple[int, str | None]]:
    """Where the mean over classes (0, None) and each class (1 ...) stand; one class alone is the mean."""
    return [(0, None), *(enumerate(classes, start=1) if per_class and len(classes) > 1 else ())]


def _difference(
    pair: tuple[str, str],
    metric: str,
    of_class: str | None,
    estimate: Estimate,
    at: tuple[int, int],
    sides: Sequence[FloatArray],
    patients: NDArray[np.str_],
    of_cases: FloatArray | None,
) -> Difference:
    """One row. ``at``: its place in ``estimate`` and ``sides``. ``of_cases``: (n, k) differences of cases in k classes,
    None where a case has no value; ``patients``: theirs."""
    tested: FloatArray | None = None
    known: NDArray[np.bool_] = np.ones(len(patients), dtype=np.bool_)
    if of_cases is not None:
        known = np.asarray((~np.isnan(of_cases)).any(axis=1))
        tested = _patient_means(of_cases[known], patients[known])
    units = len(set(patients[known]))
    p = bootstrap_p(estimate.draws[:, *at]) if tested is None else signed_rank_p(tested)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    wins, ties, losses = (
        (None, None, None) if tested is None else (int((np.sign(tested) * sign == way).sum()) for way in (1, 0, -1))
    )
    return Difference(
        *pair,
        metric,
        of_class,
        patients=units,
        cases=int(known.sum()),
        run_mean=float(sides[0][at]),
        reference_mean=float(sides[1][at]),
        difference=float(estimate.point[at]),
        low=float(estimate.low[at]) if units > 1 else NAN,
        high=float(estimate.high[at]) if units > 1 else NAN,
        test=BOOTSTRAP if tested is None else SIGNED_RANK,
        p=p if units > 1 else NAN,
        wins=wins,
        ties=ties,
        losses=losses,
    )


def _patient_means(of_cases: FloatArray, patients: NDArray[np.str_]) -> FloatArray:
    """Mean over the cases of each patient in each class, then over the classes it has: (n, k) -> (patients,)."""
    _, owner = np.unique(patients, return_inverse=True)
    of_classes = mean_of_repeats(of_cases, owner)
    means: FloatArray = mean_of_repeats(of_classes.T, np.zeros(of_classes.shape[1], dtype=np.intp))[0]
    return means


def _withbrier_scores(truth: NDArray[np.int64], probabilities: FloatArray, repeat_of: NDArray[np.int64]) -> Statistic:
    """The metrics of ``COMPARED``, mean over classes first."""
    scores, error = mean_score_of_repeats(truth, probabilities, repeat_of), brier_scores(truth, probabilities)[:, None]

    def statistic(weights: FloatArray) -> FloatArray:
        found = scores(weights)
        last = np.full((len(found), 1, found.shape[2]), np.nan)
        last[:, 0, 0] = weighted_means(error, weights)[:, 0]
        return np.concatenate([found, last], axis=1)

    return statistic
