"""By how much the score of the best of several trials flatters it: that score was looked at to choose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.statistics import FloatArray, Statistic, case_weights, class_mean, weighted_means
from pipeline.evaluation.summary import (
    CLASSIFICATION_METRICS,
    SEGMENTATION_METRICS,
    mean_of_repeats,
    mean_score_of_repeats,
)

AT_ONCE = 500  # resamples


@dataclass(frozen=True)
class Optimism:
    """``best``: score of the chosen trial on the cases that chose it. ``honest``: what to expect on others."""

    best: float
    honest: float
    maximise: bool
    ci95: tuple[float, float]
    resamples: int

    @property
    def amount(self) -> float:
        """By how much the score flatters, in units of the metric; 0 where the bootstrap finds nothing."""
        return max(0.0, self.best - self.honest if self.maximise else self.honest - self.best)


def selection_optimism(
    patients: Sequence[str], trials: Sequence[Statistic], *, maximise: bool, resamples: int, seed: int
) -> Optimism | None:
    """Bootstrap the choice: the best trial on the patients drawn is scored on those that were not.

    patients: the patient of each of n cases. trials: each takes case weights (r, n) and returns its score (r,).
    Resamples in which a score of the chosen trial is undefined do not count; None where none counts.

    Bootstrap bias-corrected cross-validation: Tsamardinos, Greasidou and Borboudakis, Machine Learning 2018, algorithm
    3, with patients in place of rows. Nothing is trained anew.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < 2 or not trials:
        return None
    sign = 1.0 if maximise else -1.0
    found = []
    for weights in case_weights(owner, len(names), resamples, seed, at_once=AT_ONCE):
        drawn = np.stack([sign * trial(weights) for trial in trials])  # (trials, r)
        left = np.stack([trial((weights == 0).astype(float)) for trial in trials])
        chosen = np.argmax(np.where(np.isnan(drawn), -np.inf, drawn), axis=0)
        found.append(left[chosen, np.arange(len(weights))])
    scores = np.concatenate(found)
    scores = scores[~np.isnan(scores)]
    whole = np.array([trial(np.ones((1, len(owner))))[0] for trial in trials])
    if not len(scores) or np.isnan(whole).all():
        return None
    best = float(sign * np.nanmax(sign * whole))
    low, high = np.quantile(scores, [0.025, 0.975])
    return Optimism(best, float(scores.mean()), maximise, (float(low), float(high)), len(scores))


def score_of_cases(
    task: str, table: pd.DataFrame, metric: str, class_names: Sequence[str]
) -> tuple[list[str], Statistic]:
    """The cases of a run in the order of their ids, by their patients, and its score under weights of them.

    table: that of cases.csv; the metric's mean as summary.json has it.
    """
    if task == "classification":
        return _of_classification(table, metric, class_names)
    table = table.sort_values(["case_id", "fold"], kind="stable")
    classes = sorted(set(table["class"]))
    scored = table.drop_duplicates(["fold", "case_id"])
    case = table.groupby(["fold", "case_id"], sort=False, dropna=False).ngroup().to_numpy()
    column = table["class"].map({name: index for index, name in enumerate(classes)}).to_numpy()
    values = np.full((len(scored), len(classes)), np.nan)
    assert metric in SEGMENTATION_METRICS
    values[case, column] = table[metric].astype(float).abs()
    of_cases = mean_of_repeats(values, scored.groupby("case_id", sort=False).ngroup().to_numpy())
    defined: NDArray[np.bool_] = np.asarray(~np.isnan(of_cases).all(axis=0))

    def score(weights: FloatArray) -> FloatArray:
        return class_mean(weighted_means(of_cases, weights), defined)

    return scored.drop_duplicates("case_id")["patient_id"].astype(str).tolist(), score


def _of_classification(table: pd.DataFrame, metric: str, class_names: Sequence[str]) -> tuple[list[str], Statistic]:
    names, index = list(class_names), CLASSIFICATION_METRICS.index(metric)
    table = table.sort_values(["case_id", "fold"], kind="stable")
    truth = table["target"].map({name: number for number, name in enumerate(names)}).to_numpy(np.int64)
    scores = mean_score_of_repeats(truth, table[names].to_numpy(float), table["repeat"].to_numpy())
    cases = table.drop_duplicates("case_id")
    case_of = table["case_id"].map({case: number for number, case in enumerate(cases["case_id"])}).to_numpy()
    return cases["patient_id"].astype(str).tolist(), lambda weights: scores(weights[:, case_of])[:, index, 0]
