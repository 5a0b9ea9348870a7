"""An experiment whose data are not prepared, for what needs its settings and its data set only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.data.case import Dataset
from pipeline.data.sides import Sides
from pipeline.training.experiment import Experiment

FREE = Sides((0,), (), ())  # left and right lie along the first axis, and no classes are a pair


def unprepared(dataset: Dataset, *overrides: str, sides: Sides = FREE) -> Experiment:
    """Of ``dataset``, composed with ``overrides``; its store is None."""
    composed = validate(compose("train", [f"task={dataset.task}", *overrides]), TrainConfig)
    assert isinstance(composed.model, TrainConfig)
    nowhere: Any = None
    return Experiment(
        settings=composed.model,
        tree=composed.tree,
        dataset=dataset,
        folds=(),
        store=nowhere,
        patch_size=(8,) * dataset.spatial_dims,
        spacing=(1.0,) * dataset.spatial_dims,
        channels=1,
        sides=sides,
        output=Path("/nowhere"),
        console=Console(quiet=True),
        trusted=(),
    )
