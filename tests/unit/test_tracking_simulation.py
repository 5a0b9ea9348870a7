"""The simulation of a sweep and its server (scripts/bench/tracking_simulation.py): everything arrives, once."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def simulation() -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))
    try:
        import tracking_simulation
    finally:
        sys.path.pop(0)
    return tracking_simulation


@pytest.fixture
def costs(simulation: Any) -> Any:
    return simulation.Costs(
        batch=0.02,
        point=0.0002,
        params=0.03,
        create=0.03,
        update=0.02,
        get=0.01,
        search=0.02,
        known_run=0.00001,
        artifact=0.02,
        byte=2e-9,
    )


@pytest.fixture
def sweep(simulation: Any) -> Any:
    return simulation.Sweep(trials=12, folds=2, clients=6, fold_s=100.0, epochs=20)


def test_every_call_is_made_once_and_answered(simulation: Any, sweep: Any, costs: Any) -> None:
    plain = simulation.Design(batching=False)
    outcome = simulation.simulate(sweep, plain, costs, cores=2)
    assert outcome.calls["create run"] == sweep.runs == 36
    assert outcome.calls["search"] == 2 * sweep.runs
    assert outcome.calls["metrics"] == 12 * 2 * sweep.epochs * sweep.metrics
    assert outcome.calls["artifacts"] == 12 * 2 * (sweep.pictures + sweep.checkpoints)
    assert len(outcome.waits) == sum(outcome.calls.values())
    assert outcome.given_up == outcome.refused == 0
    assert outcome.seconds >= outcome.trained_s > 2 * 2 * 80
    batched = simulation.simulate(sweep, simulation.Design(), costs, cores=2)
    assert batched.calls["metrics"] <= 12 * 2 * sweep.epochs
    assert sum(batched.cpu_s.values()) < sum(outcome.cpu_s.values())


def test_nothing_is_lost_while_the_server_is_away(simulation: Any, sweep: Any, costs: Any) -> None:
    outcome = simulation.simulate(sweep, simulation.Design(), costs, cores=2, outage=(50.0, 150.0))
    assert outcome.refused > 0
    assert outcome.calls["create run"] - outcome.given_up <= sweep.runs <= outcome.calls["create run"]
    assert outcome.calls["artifacts"] == 12 * 2 * (sweep.pictures + sweep.checkpoints)


def test_workers_do_not_come_back_in_step(simulation: Any, sweep: Any, costs: Any) -> None:
    at_once = replace(sweep, trials=60, clients=60, fold_s=1000.0, start_s=0.0)
    apart, in_step = (
        simulation.simulate(at_once, simulation.Design(jitter=jitter), costs, cores=2, outage=(0.0, 300.0))
        for jitter in (True, False)
    )
    assert max(apart.waits) < max(in_step.waits)
    assert sum(apart.cpu_s.values()) == pytest.approx(sum(in_step.cpu_s.values()), rel=0.1)


def test_a_server_that_is_too_slow_is_asked_less(simulation: Any, sweep: Any, costs: Any) -> None:
    slow = replace(costs, batch=2.0)
    patient, eager = (
        simulation.simulate(sweep, simulation.Design(patient=patient), slow, cores=1) for patient in (True, False)
    )
    assert patient.calls["metrics"] < 0.8 * eager.calls["metrics"]
