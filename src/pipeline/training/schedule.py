"""Learning rate as a function of progress: 0 at the first step, 1 at the end of training."""

from __future__ import annotations

import math
from dataclasses import dataclass


class Shape:
    """A factor on the optimizer's own learning rate."""

    def factor(self, progress: float) -> float:
        """The factor at ``progress`` in [0, 1]."""
        raise NotImplementedError

    def observe(self, metric: float) -> None:
        """A new value of the validation metric (higher is better); most shapes do not care."""

    def state(self) -> dict[str, float]:
        """What a checkpoint must keep."""
        return {}

    def load(self, state: dict[str, float]) -> None:
        """Restore what :meth:`state` gave."""


def _warm(progress: float, warmup: float) -> float:
    """Linear rise over the first ``warmup`` of training; never zero, so the first step already learns."""
    return 1.0 if progress >= warmup else max(0.01, progress / warmup)


@dataclass
class Constant(Shape):
    """The same rate throughout, after a linear warm-up."""

    warmup: float = 0.0

    def factor(self, progress: float) -> float:
        return _warm(progress, self.warmup)


@dataclass
class Cosine(Shape):
    """Linear warm-up, then half a cosine down to ``final`` (Loshchilov & Hutter 2017)."""

    warmup: float = 0.05
    final: float = 0.0

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return _warm(progress, self.warmup)
        rest = min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * rest))


@dataclass
class Polynomial(Shape):
    """``(1 - progress) ** power`` (nnU-Net: power 0.9), after a linear warm-up."""

    power: float = 0.9
    warmup: float = 0.0

    def factor(self, progress: float) -> float:
        return float(_warm(progress, self.warmup) * max(0.0, 1 - progress) ** self.power)


@dataclass
class OneCycle(Shape):
    """Cosine rise from ``initial`` to 1 over the first ``rise`` of training, cosine fall to ``final`` (Smith 2018)."""

    rise: float = 0.3
    initial: float = 0.04
    final: float = 0.000004

    def factor(self, progress: float) -> float:
        if progress < self.rise:
            start, end, part = self.initial, 1.0, progress / self.rise
        else:
            start, end, part = 1.0, self.final, min(1.0, (progress - self.rise) / (1 - self.rise))
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))


class Plateau(Shape):
    """Multiply the rate by ``factor`` after more than ``patience`` validations without a gain of ``min_delta``.

    Same rule as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` (mode max, absolute threshold, no cooldown); the rate
    never falls below ``final`` of the optimizer's own.
    """

    def __init__(self, factor: float = 0.1, patience: int = 3, min_delta: float = 0.001, final: float = 0.0001) -> None:
        self.step = factor
        self.patience = patience
        self.min_delta = min_delta
        self.final = final
        self.current = 1.0
        self.best = -math.inf
        self.waited = 0

    def factor(self, progress: float) -> float:
        return self.current

    def observe(self, metric: float) -> None:
        if metric > self.best + self.min_delta:
            self.best, self.waited = metric, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.current, self.waited = max(self.final, self.current * self.step), 0

    def state(self) -> dict[str, float]:
        return {"current": self.current, "best": self.best, "waited": self.waited}

    def load(self, state: dict[str, float]) -> None:
        self.current, self.best, self.waited = state["current"], state["best"], int(state["waited"])
