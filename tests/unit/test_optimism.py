"""How much choosing the best of several flatters it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.optimism import score_of_cases, selection_optimism
from pipeline.evaluation.statistics import FloatArray, Statistic, weighted_means
from pipeline.evaluation.summary import summarise


def mean_of(values: FloatArray) -> Statistic:
    return lambda weights: weighted_means(values[:, None], weights)[:, 0]


def test_trials_that_differ_by_chance_alone_flatter_by_the_range_of_chance() -> None:
    rng = np.random.default_rng(0)
    trials = rng.normal(0.8, 0.1, (50, 40))  # 50 equally good trials, 40 patients
    patients = [f"p{number}" for number in range(40)]
    found = selection_optimism(patients, [mean_of(t) for t in trials], maximise=True, resamples=500, seed=0)
    assert found is not None
    assert found.best == pytest.approx(trials.mean(axis=1).max())
    # The best of 50 means of sd 0.1 / sqrt(40) lies 2.25 sd above 0.8: 0.036.
    assert 0.02 < found.amount < 0.06
    assert found.honest == pytest.approx(0.8, abs=0.02)
    assert found.ci95[0] < found.honest < found.ci95[1]


def test_one_that_is_better_everywhere_flatters_by_nothing() -> None:
    good, bad = np.linspace(0.8, 0.9, 20), np.linspace(0.1, 0.2, 20)
    patients = [str(number) for number in range(20)]
    found = selection_optimism(patients, [mean_of(bad), mean_of(good)], maximise=True, resamples=400, seed=0)
    assert found is not None
    assert found.best == pytest.approx(0.85)
    assert found.amount < 0.005
    lower = selection_optimism(patients, [mean_of(bad), mean_of(good)], maximise=False, resamples=400, seed=0)
    assert lower is not None
    assert lower.best == pytest.approx(0.15)


def test_two_patients_by_hand() -> None:
    # Drawn (a, a) or (b, b): the trial that is best there is scored on the other patient, 0. Drawn (a, b): nobody left.
    found = selection_optimism(
        ["a", "b"], [mean_of(np.array([1.0, 0.0])), mean_of(np.array([0.0, 1.0]))], maximise=True, resamples=99, seed=3
    )
    assert found is not None
    assert found.honest == 0.0
    assert found.best == 0.5
    assert found.amount == 0.5
    assert 0 < found.resamples < 99


def test_one_patient_says_nothing() -> None:
    assert selection_optimism(["a", "a"], [mean_of(np.ones(2))], maximise=True, resamples=9, seed=0) is None


def test_score_of_a_segmentation_is_that_of_its_summary() -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "case_id": f"c{case}",
            "patient_id": f"p{case // 2}",
            "fold": case % 2,
            "repeat": 0,
            "class": name,
            "empty": "none",
        }
        | {metric: rng.random() for metric in ("dice", "surface_dice")}
        | {metric: rng.normal() for metric in ("hd95_mm", "volume_error_ml", "volume_error_percent")}
        for case in (3, 1, 2, 0)
        for name in ("lung", "tumour")
    ]
    table = pd.DataFrame(rows)
    table.loc[0, "dice"] = np.nan
    summary = summarise("segmentation", table, (), folds=[0, 1], resamples=10, seed=0)
    for metric in ("dice", "volume_error_ml"):
        patients, score = score_of_cases("segmentation", table, metric, ())
        assert patients == ["p0", "p0", "p1", "p1"]
        assert score(np.ones((1, 4)))[0] == pytest.approx(summary["metrics"][metric]["mean"])


def test_score_of_a_classification_is_that_of_its_summary() -> None:
    rng = np.random.default_rng(2)
    table = pd.DataFrame(
        {
            "case_id": [f"c{number % 12}" for number in range(24)],
            "patient_id": [f"p{number % 12}" for number in range(24)],
            "fold": [0] * 12 + [1] * 12,
            "repeat": [0] * 12 + [1] * 12,
            "target": ["ill" if number % 3 == 0 else "well" for number in range(24)],
        }
    )
    table["ill"] = rng.random(24)
    table["well"] = 1 - table["ill"]
    summary = summarise("classification", table, ("ill", "well"), folds=[0, 1], resamples=10, seed=0)
    for metric in ("auroc", "balanced_accuracy"):
        patients, score = score_of_cases("classification", table, metric, ("ill", "well"))
        assert len(patients) == 12
        assert score(np.ones((1, 12)))[0] == pytest.approx(summary["metrics"][metric]["mean"])
