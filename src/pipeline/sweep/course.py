"""How a trial does while it trains, read from its folder whatever processes train in it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.recorded import EXPERIMENT_FILE, read_plain_yaml
from pipeline.errors import UserError
from pipeline.training.duration import seconds_of
from pipeline.training.fold import FittedFold
from pipeline.training.tracked import fold_key


@dataclass(frozen=True)
class _Length:
    """What bounds the training of a fold; None: does not."""

    epochs: float | None
    seconds: float | None
    steps: float | None

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> _Length:
        schedule, trainer = tree["schedule"], tree["trainer"]
        budget = schedule["budget"]
        return cls(schedule["epochs"], None if budget is None else seconds_of(budget), trainer["max_steps"])

    def share(self, row: Mapping[str, str]) -> float:
        """How much of its training a fold had behind it after this epoch, 0 to 1."""
        done = (
            (float(row["epoch"]) + 1, self.epochs),
            (float(row["seconds"]), self.seconds),
            (float(row["step"]), self.steps),
        )
        return min(1.0, max((now / of for now, of in done if of), default=0.0))


def course_of(folder: Path, folds: Sequence[int], points: int) -> list[tuple[int, float]]:
    """Steps and values of a trial so far: ``points`` steps a fold, one fold after the other.

    The value at a step is the mean over the folds seen by then: of finished ones the validation metric with which their
    training ended, of the one under way its first in that part of the training.
    """
    try:
        length = _Length.of(read_plain_yaml(folder / EXPERIMENT_FILE))
    except UserError:  # not begun
        return []
    found: dict[int, float] = {}
    ended: list[float] = []
    for position, fold in enumerate(folds):
        part = folder / fold_key(fold)
        for share, value in _validations(part / "metrics.csv", length):
            point = min(points - 1, math.floor(share * points + 1e-9))
            if point > 0:
                found.setdefault(position * points + point, _mean([*ended, value]))
        fitted = FittedFold.read(part)
        if (
            fitted is None
            or (last := fitted.last_metric if fitted.last_metric is not None else fitted.best_metric) is None
        ):
            break
        ended.append(last)
        found[(position + 1) * points] = _mean(ended)
    return sorted(found.items())


def _validations(path: Path, length: _Length) -> Iterator[tuple[float, float]]:
    """Share of the training and validation metric of each epoch that was validated."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return
    for row in rows:
        if row.get("val_metric") and math.isfinite(value := float(row["val_metric"])):
            yield length.share(row), value


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
