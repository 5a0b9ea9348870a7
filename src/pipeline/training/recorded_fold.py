"""One fold from its training to its MLflow run: what is done in the process of the run, or in one of the fold's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.data.folds import Fold
from pipeline.evaluation.cases import CASES_FILE, read_cases, write_cases
from pipeline.tracking.tracker import Tracker
from pipeline.training.experiment import Experiment
from pipeline.training.finished import finish
from pipeline.training.fold import FITTED_FILE, PACE_FILE, FittedFold
from pipeline.training.fold_run import FoldRun
from pipeline.training.pictures import draw_curves
from pipeline.training.results import metric_name, summarised
from pipeline.training.tracked import fold_key, parent_of_folds


def train_fold(
    experiment: Experiment, fold: Fold, tracker: Tracker | None, tags: Mapping[str, str], *, log: Path | None = None
) -> None:
    """Train, predict, report. ``tracker``: that of the fold. ``log``: what this process says, kept with the run."""
    key, run = fold_key(fold.index), FoldRun(experiment, fold)
    if run.rebalancing.line is not None:
        experiment.console.print(f"fold {fold.index}: {run.rebalancing.line}", highlight=False)
    if tracker is not None:
        params = {"fold": fold.index, "repeat": fold.repeat, **run.rebalancing.params}
        parent = parent_of_folds(experiment.output)
        tracker.start_run(key, f"fold {fold.index}", parent=parent, tags=tags, params=params)
    _train(run, tracker)
    if tracker is not None:
        if log is not None:
            tracker.log_artifact(key, log)
        tracker.end_run(key, "FINISHED")
    finish(run.folder, run.rebalancing.params)


def _train(run: FoldRun, tracker: Tracker | None) -> None:
    key, fold, console = fold_key(run.fold.index), run.fold, run.experiment.console

    def send(metrics: Mapping[str, float], epoch: int) -> None:
        if tracker is not None:
            tracker.log_metrics(key, metrics, epoch)

    fitted = run.train(send)
    _tell_what_ended(run, fitted)
    table = run.predict()
    table.insert(table.columns.get_loc("fold") + 1, "repeat", fold.repeat)
    write_cases(table, run.folder / CASES_FILE)
    block = summarised(run.experiment, read_cases(run.folder / CASES_FILE), [fold.index])
    means = {name: entry["mean"] for name, entry in block["metrics"].items() if entry["mean"] is not None}
    console.print(f"fold {fold.index}: {_in_words(means)}", highlight=False)
    draw_curves(
        {fold.index: run.folder / "metrics.csv"},
        run.folder / "learning_curves.png",
        metric_name(run.settings),
    )
    if tracker is not None:
        send({f"oof_{name}": value for name, value in means.items()}, 0)
        for name in (CASES_FILE, FITTED_FILE, PACE_FILE):
            tracker.log_artifact(key, run.folder / name)
        tracker.log_artifact(key, run.folder / "learning_curves.png", "figures")
        if run.settings.tracking.checkpoints:
            tracker.log_artifact(key, run.folder / "checkpoints", "checkpoints")


def _tell_what_ended(run: FoldRun, fitted: FittedFold) -> None:
    schedule = run.settings.schedule
    if schedule.budget is None or schedule.epochs is None or fitted.epochs >= schedule.epochs:
        return
    run.experiment.console.print(
        f"fold {run.fold.index}: schedule.budget={schedule.budget} ended it after {fitted.epochs} of "
        f"{schedule.epochs} epochs, {fitted.steps} steps (schedule.budget=null lets them all run)",
        highlight=False,
    )


def _in_words(means: Mapping[str, float]) -> str:
    shown = [
        name for name in ("dice", "surface_dice", "hd95_mm", "auroc", "balanced_accuracy", "accuracy") if name in means
    ]
    return ", ".join(f"{name} {means[name]:.3f}" for name in shown)
