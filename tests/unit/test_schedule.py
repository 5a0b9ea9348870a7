"""Learning rate shapes against hand-computed values and torch's own plateau rule."""

import math

import pytest
import torch

from pipeline.training.duration import in_words, seconds_of
from pipeline.training.schedule import Constant, Cosine, OneCycle, Plateau, Polynomial


def test_cosine() -> None:
    shape = Cosine(warmup=0.1, final=0.2)
    assert shape.factor(0.05) == pytest.approx(0.5)
    assert shape.factor(0.1) == pytest.approx(1.0)
    assert shape.factor(0.55) == pytest.approx(0.6)
    assert shape.factor(1.0) == pytest.approx(0.2)


def test_polynomial_is_nnunets() -> None:
    assert Polynomial(0.9).factor(0.25) == pytest.approx(0.75**0.9)
    assert Polynomial(0.9).factor(1.0) == 0.0


def test_constant_warms_up() -> None:
    assert [Constant(0.5).factor(p) for p in (0.25, 0.5, 1.0)] == [0.5, 1.0, 1.0]
    assert Constant(0.0).factor(0.0) == 1.0


def test_one_cycle_equals_torch() -> None:
    steps = 100
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, pct_start=0.3, cycle_momentum=False
    )
    shape = OneCycle(rise=29 / 99, initial=1 / 25, final=1 / 25e4)
    for step in range(steps):
        assert shape.factor(step / (steps - 1)) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        if step < steps - 1:
            reference.step()


def test_plateau_equals_torch() -> None:
    metrics = [0.1, 0.2, 0.2, 0.2005, 0.2, 0.19, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.1, patience=2, threshold=0.001, threshold_mode="abs"
    )
    shape = Plateau(factor=0.1, patience=2, min_delta=0.001, final=0.0)
    for metric in metrics:
        shape.observe(metric)
        reference.step(metric)
        assert shape.factor(0.5) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert shape.factor(0.0) < 1
    again = Plateau(factor=0.1, patience=2, min_delta=0.001, final=0.0)
    again.load(shape.state())
    assert again.state() == shape.state()


def test_durations() -> None:
    assert [seconds_of(text) for text in ("90s", "1.5m", "2h", "1d")] == [90, 90, 7200, 86400]
    assert [in_words(seconds) for seconds in (45, 200, 7500, math.nan)] == ["45 s", "3:20 min", "2:05 h", "?"]
