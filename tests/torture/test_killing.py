"""Runs that are killed and gone on with end with the same bits; python -m tests.torture.killing is the long form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.torture.killing import EXPERIMENTS, Experiment, torture

SHORT = 4  # kills
QUICK = [experiment for experiment in EXPERIMENTS[::2] if "trainer.workers=2" not in experiment.overrides]


@pytest.mark.parametrize("experiment", QUICK, ids=lambda experiment: experiment.name)
def test_killed_runs_end_with_the_same_bits(experiment: Experiment, tmp_path: Path) -> None:
    where = torture(experiment, tmp_path / "run", SHORT, random.Random(1))
    assert sum(where.values()) >= SHORT


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_runs_killed_often_end_with_the_same_bits(experiment: Experiment, tmp_path: Path) -> None:
    torture(experiment, tmp_path / "run", 15, random.Random(2))
