"""How far a case, or most of the cases, may lie from those of a fingerprint before it is drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.data.fingerprint.model import Spread


@dataclass(frozen=True)
class DriftSettings:
    """Limits of drift; conf/predict.yaml says what each of them means."""

    enabled: bool = True
    spacing_factor: float = 1.25
    size_factor: float = 1.5
    margin: float = 0.5
    central: tuple[float, float] = (5.0, 95.0)
    least_width: float = 0.1
    median_margin: float = 0.05
    median_files: int = 5
    few_cases: int = 10

    def widened(self, cases: int) -> float:
        """By how much limits are wider where the training data had few cases, which show little of the range."""
        return 1 + self.few_cases / cases


@dataclass(frozen=True)
class Limits:
    """Limits of one quantity: of a case, and of the median of many.

    ``range``: lowest and highest training case; ``central``: between these most of them lie. Distances beyond a limit
    are told in multiples of ``unit``, where ``scale`` is ``factor`` as logarithms.
    """

    range: tuple[float, float]
    central: tuple[float, float]
    case: tuple[float, float]
    median: tuple[float, float]
    unit: float
    scale: Literal["factor", "width"]

    @classmethod
    def by_factor(cls, training: Spread, settings: DriftSettings, factor: float) -> Limits:
        """Of a positive quantity."""
        factor = factor ** settings.widened(training.count)
        low, high = central(training, settings.central)
        return cls(
            range=(training.min, training.max),
            central=(low, high),
            case=(training.min / factor, training.max * factor),
            median=(low / factor, high * factor),
            unit=float(np.log(factor)),
            scale="factor",
        )

    @classmethod
    def by_width(cls, training: Spread, settings: DriftSettings, contrast: float) -> Limits:
        """Of an intensity; ``contrast``: what intensities of a case usually span."""
        low, high = central(training, settings.central)
        unit = max(high - low, settings.least_width * contrast) * settings.widened(training.count)
        return cls(
            range=(training.min, training.max),
            central=(low, high),
            case=(training.min - settings.margin * unit, training.max + settings.margin * unit),
            median=(low - settings.median_margin * unit, high + settings.median_margin * unit),
            unit=unit,
            scale="width",
        )

    def beyond(self, value: float, limits: tuple[float, float]) -> float:
        """How far a value lies outside of limits, in units; 0 inside."""
        low, high = limits
        if low <= value <= high:
            return 0.0
        near = low if value < low else high
        if self.scale == "width":
            return abs(value - near) / self.unit if self.unit > 0 else np.inf
        return abs(float(np.log(value / near))) / self.unit if value > 0 and self.unit > 0 else np.inf


def central(training: Spread, bounds: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles of the training cases, interpolated between those that are known."""
    known = {0.0: training.min, 50.0: training.median, 100.0: training.max}
    known |= {float(percent): value for percent, value in training.percentiles.items()}
    low, high = np.interp(bounds, sorted(known), [known[percent] for percent in sorted(known)]).tolist()
    return low, high
