"""The keys of ``sweep:``; see ``conf/sweep/optuna.yaml`` for the meaning of each value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.schema_types import Count, Section


class Objective(Section):
    """What is sought; ``direction`` null: the better one of the metric."""

    metric: str
    direction: Literal["maximize", "minimize"] | None = None


class Pruning(Section):
    """Which trials are ended before their time."""

    method: Literal["none", "median", "hyperband"]
    points: Count
    startup: Annotated[int, Field(ge=0)]
    warmup: Annotated[int, Field(ge=0)]
    reduction: Annotated[int, Field(ge=2)]


class Sweep(Section):
    """Trials of one experiment with drawn settings."""

    space: str | dict[str, Any] | None
    trials: Count
    failures: Count
    at_once: Count
    objectives: list[Objective] | None
    sampler: Literal["tpe", "cmaes", "random", "grid"]
    startup: Count
    grid_points: Annotated[int, Field(ge=2)]
    pruning: Pruning
    storage: str | None
    resamples: Count
