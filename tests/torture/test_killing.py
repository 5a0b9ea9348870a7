"""Runs that are killed and gone on with end with the same bits; python -m tests.torture.killing is the long form."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.torture.killing import EXPERIMENTS, Experiment, torture

SHORT = 4  # kills
SHORTER = ("schedule.epochs=2", "folds.run=[0]")  # every epoch starts its data-loading processes, for seconds


def short(experiment: Experiment) -> Experiment:
    workers = "trainer.workers=2" in experiment.overrides
    return replace(experiment, overrides=(*experiment.overrides, *SHORTER)) if workers else experiment


@pytest.mark.parametrize("experiment", EXPERIMENTS[::2], ids=lambda experiment: experiment.name)
def test_killed_runs_end_with_the_same_bits(experiment: Experiment, tmp_path: Path) -> None:
    where = torture(short(experiment), tmp_path / "run", SHORT, random.Random(1))
    assert sum(where.values()) >= SHORT


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_runs_killed_often_end_with_the_same_bits(experiment: Experiment, tmp_path: Path) -> None:
    torture(experiment, tmp_path / "run", 15, random.Random(2))
