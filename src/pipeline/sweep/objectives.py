"""What is sought: metrics of a run's summary, the time or the size that it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.nearest import did_you_mean
from pipeline.config.schema import TrainConfig
from pipeline.errors import UserError

Direction = Literal["maximize", "minimize"]

SEGMENTATION: dict[str, Direction] = {
    "dice": "maximize",
    "surface_dice": "maximize",
    "hd95_mm": "minimize",
    "volume_error_ml": "minimize",
    "volume_error_percent": "minimize",
}
CLASSIFICATION: dict[str, Direction] = dict.fromkeys(
    ("auroc", "average_precision", "accuracy", "balanced_accuracy", "precision", "recall", "f1"), "maximize"
)
COSTS: dict[str, Direction] = {
    "seconds": "minimize",  # training time, all folds
    "parameters": "minimize",  # trainable weights
}


@dataclass(frozen=True)
class Objective:
    """A number of a finished trial, and which end of it is better."""

    metric: str
    direction: Direction

    def value(self, summary: Mapping[str, Any]) -> float:
        """Of a trial's summary.json; NaN where it is undefined."""
        if self.metric == "seconds":
            return float(summary["seconds"])
        if self.metric == "parameters":
            return float(summary["folds"][0]["parameters"])
        mean = summary["metrics"][self.metric]["mean"]
        return math.nan if mean is None else float(mean)

    @property
    def is_cost(self) -> bool:
        """Whether it says nothing of the quality of the predictions."""
        return self.metric in COSTS


def watched(task: str) -> str:
    """The metric that validation watches while a fold trains."""
    return "auroc" if task == "classification" else "dice"


def objectives_of(settings: TrainConfig, asked: Sequence[Any] | None) -> tuple[Objective, ...]:
    """The objectives that ``sweep.objectives`` asks for; null: the metric that validation watches. UserError."""
    known = (CLASSIFICATION if settings.task == "classification" else SEGMENTATION) | COSTS
    if not asked:
        return (Objective(watched(settings.task), "maximize"),)
    found = []
    for entry in asked:
        if entry.metric not in known:
            raise UserError(
                f"sweep.objectives: {entry.metric!r} is no metric of {settings.task}", did_you_mean(entry.metric, known)
            )
        found.append(Objective(entry.metric, entry.direction or known[entry.metric]))
    names = [objective.metric for objective in found]
    if len(set(names)) < len(names):
        raise UserError(f"sweep.objectives: {', '.join(names)}: one of them stands there twice", "leave one out")
    return tuple(found)
