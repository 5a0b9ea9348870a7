"""What the case table of a run, or of one fold, says of its experiment; and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from pipeline.config.schema import TrainConfig
from pipeline.evaluation.report import print_summary
from pipeline.evaluation.summary import summarise
from pipeline.tasks.classification import ClassificationTask
from pipeline.tasks.segmentation import SegmentationTask
from pipeline.tracking.uri import open_page_command
from pipeline.training.experiment import Experiment


def summarised(experiment: Experiment, table: pd.DataFrame, folds: Sequence[int]) -> dict[str, Any]:
    """Metrics of ``folds`` with their intervals, as summary.json has them."""
    how, names = experiment.settings.evaluation, experiment.dataset.output_classes
    return summarise(experiment.settings.task, table, names, folds=list(folds), resamples=how.resamples, seed=how.seed)


def metric_name(settings: TrainConfig) -> str:
    """The metric that validation watches."""
    return ClassificationTask.metric if settings.task == "classification" else SegmentationTask.metric


def tell_results(summary: Mapping[str, Any], output: Path, console: Console) -> None:
    """Print the table, and where everything is."""
    print_summary(summary, console)
    console.print(f"Results: {output}", highlight=False, soft_wrap=True)
    if summary["mlflow"]["uri"] is not None:
        console.print(f"MLflow:  {open_page_command(summary['mlflow']['uri'])}", highlight=False, soft_wrap=True)
