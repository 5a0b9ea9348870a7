from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline.evaluation.classification_metrics import per_class_scores
from pipeline.evaluation.statistics import class_mean, patient_bootstrap, weighted_means


def mean_of(values):
    column = np.asarray(values, float).reshape(len(values), -1)
    return lambda weights: weighted_means(column, weights)


def test_weighted_means_by_hand():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [6.0, 4.0]])
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0], [1.0, 3.0, 0.0]])
    expected = [[3.0, 4.0], [8 / 3, 4.0], [7 / 4, np.nan]]
    np.testing.assert_allclose(weighted_means(values, weights), expected)


def test_two_patients_by_hand():
    # Two patients give the means 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4: the 2.5 % ends are 0 and 1.
    drawn = []

    def statistic(weights):
        drawn.append(weights)
        return weighted_means(np.array([[0.0], [1.0]]), weights)

    estimate = patient_bootstrap(["a", "b"], statistic, resamples=4000, seed=1)
    assert (estimate.point[0], estimate.low[0], estimate.high[0]) == (0.5, 0.0, 1.0)
    weights = np.concatenate(drawn[1:])
    assert weights.shape == (4000, 2)
    assert (weights.sum(axis=1) == 2).all()
    assert np.mean(weights[:, 0] == 1) == pytest.approx(0.5, abs=0.03)


def test_cases_of_a_patient_are_drawn_together():
    def statistic(weights):
        assert (weights[:, 0] == weights[:, 2]).all()
        return weights[:, :1]

    patient_bootstrap(["a", "b", "a", "c"], statistic, resamples=50, seed=0)


def test_interval_of_a_mean_agrees_with_theory():
    values = np.random.default_rng(0).normal(10, 2, 400)
    estimate = patient_bootstrap([str(i) for i in range(400)], mean_of(values), resamples=4000, seed=0)
    half = 1.96 * values.std() / 20
    assert estimate.point[0] == pytest.approx(values.mean())
    assert estimate.low[0] == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high[0] == pytest.approx(values.mean() + half, abs=0.02)


def test_coverage_with_several_cases_per_patient():
    """Of 200 studies with correlated cases, about 95 % of the intervals hold the true mean; by case far fewer do."""
    rng = np.random.default_rng(2)
    patients = np.repeat([f"p{i}" for i in range(40)], 4)
    held = {"patient": 0, "case": 0}
    for study in range(200):
        values = rng.normal(0, 1, 40).repeat(4) + rng.normal(0, 0.3, 160)
        for unit, owners in (("patient", patients), ("case", [str(i) for i in range(160)])):
            estimate = patient_bootstrap(owners, mean_of(values), resamples=300, seed=study)
            held[unit] += int(estimate.low[0] <= 0 <= estimate.high[0])
    assert 180 <= held["patient"] <= 198
    assert held["case"] < 160


def test_the_order_of_cases_does_not_matter_and_the_seed_does():
    rng = np.random.default_rng(3)
    patients = np.array([f"p{i % 17}" for i in range(50)])
    values = rng.random(50)
    first = patient_bootstrap(patients, mean_of(values), resamples=500, seed=4)
    order = rng.permutation(50)
    shuffled = patient_bootstrap(patients[order], mean_of(values[order]), resamples=500, seed=4)
    other = patient_bootstrap(patients, mean_of(values), resamples=500, seed=5)
    again = patient_bootstrap(patients, mean_of(values), resamples=500, seed=4)
    assert (first.low, first.high) == (pytest.approx(shuffled.low), pytest.approx(shuffled.high))
    assert (first.low, first.high) == (again.low, again.high)
    assert first.low != other.low


def test_resamples_without_a_value_do_not_count():
    estimate = patient_bootstrap(["a", "b", "c"], mean_of([np.nan, np.nan, 0.7]), resamples=200, seed=0)
    assert (estimate.low[0], estimate.high[0]) == (pytest.approx(0.7), pytest.approx(0.7))


def test_one_patient_has_no_interval():
    estimate = patient_bootstrap(["a", "a"], mean_of([0.2, 0.4]), resamples=100, seed=0)
    assert estimate.point[0] == pytest.approx(0.3)
    assert np.isnan([estimate.low, estimate.high]).all()


def test_class_mean_keeps_the_same_classes():
    per_class = np.array([[0.9, 0.5, np.nan], [0.9, np.nan, np.nan]])
    np.testing.assert_allclose(class_mean(per_class, np.array([True, True, False])), [0.7, np.nan])
    assert np.isnan(class_mean(per_class, np.zeros(3, bool))).all()


def test_two_thousand_resamples_of_600_cases_in_under_three_seconds():
    rng = np.random.default_rng(0)
    truth, probabilities = rng.integers(0, 3, 600), rng.dirichlet(np.ones(3), 600)

    def statistic(weights):
        return np.stack(list(per_class_scores(truth, probabilities, weights).values()), axis=1)

    start = time.process_time()
    patient_bootstrap([str(i) for i in range(600)], statistic, resamples=2000, seed=0)
    assert time.process_time() - start < 3
