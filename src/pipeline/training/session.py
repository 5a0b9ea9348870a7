"""A whole training in this process: from an opened data set to the printed table."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config.yaml_files import shown
from pipeline.ranks import rank
from pipeline.tracking.tracker import Status, Tracker
from pipeline.training.before import Before
from pipeline.training.begin import begin, tags_of
from pipeline.training.crossval import Pooled, start_parent
from pipeline.training.experiment import Experiment
from pipeline.training.finished import is_finished
from pipeline.training.fold_run import FoldRun
from pipeline.training.interrupt import Stopped
from pipeline.training.prepare import Opened, prepare, use_device
from pipeline.training.rebalancing import rebalanced_twice
from pipeline.training.recorded_fold import train_fold
from pipeline.training.results import tell_results
from pipeline.training.tracked import fold_key, open_tracker


def train(opened: Opened, *, resumed: bool = False, repeated: Path | None = None) -> int:
    """Prepare, cross-validate, record and print; the exit status.

    ``resumed``: the run's folder holds this run, interrupted. ``repeated``: folder of a run to train as again, on its
    clock and with its engine.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings, console = opened.settings, opened.console
    use_device(settings)
    before = Before.read(opened.output) if resumed else None
    first = before if repeated is None else Before.read(repeated)
    prepared = prepare(opened, first=first, repeated=repeated)
    if rank() == 0:
        prepared.record()  # before its provenance: a run that has begun can be compared with
    experiment, engine, found = begin(prepared, before, first)
    if rank() > 0:
        for fold in experiment.run_folds:  # the first process records; this one trains and predicts with it
            FoldRun(experiment, fold).assist()
        return 0
    tell_what_trains(experiment)
    console.print(engine.in_words(), highlight=False, soft_wrap=True)
    summary = _cross_validate(experiment, tags_of(found, settings.task))
    tell_results(summary, opened.output, console)
    return 0


def _cross_validate(experiment: Experiment, tags: dict[str, str]) -> dict[str, Any]:
    """Train the folds one after the other and pool them; whatever happens, their MLflow runs are ended."""
    settings, output = experiment.settings, experiment.output
    parent = open_tracker(settings, output)
    trackers: list[Tracker] = [] if parent is None else [parent]
    status: Status = "FAILED"
    try:
        if parent is not None:
            start_parent(parent, settings, output, tags, experiment.resolved())
        for fold in experiment.run_folds:
            tracker = open_tracker(settings, output, fold.index)  # of a finished fold: it may have something to send
            trackers += [] if tracker is None else [tracker]
            if is_finished(output / fold_key(fold.index)):
                experiment.console.print(f"fold {fold.index}: finished before", highlight=False)
                continue
            train_fold(experiment, fold, tracker, tags)
        for tracker in trackers:
            tracker.flush()
        summary = Pooled(experiment, [fold.index for fold in experiment.run_folds], parent).summarise()
        status = "FINISHED"
        return summary
    except Stopped:
        status = "KILLED"
        tell_how_to_go_on(output, experiment.console)
        raise
    finally:
        for tracker in reversed(trackers):
            tracker.close(status)


def tell_what_trains(experiment: Experiment) -> None:
    """Print what is to be trained, and what the user should know of it."""
    settings, dataset = experiment.settings, experiment.dataset
    experiment.console.print(
        f"{settings.name}: {len(dataset.cases)} cases of {len(dataset.patients)} patients, "
        f"training {len(experiment.run_folds)} of {len(experiment.folds)} folds, "
        f"patch {'x'.join(map(str, experiment.patch_size))}",
        highlight=False,
    )
    for line in (rebalanced_twice(settings), experiment.mirror_line()):
        if line is not None:
            experiment.console.print(line, highlight=False, soft_wrap=True)


def tell_how_to_go_on(output: Path, console: Console) -> None:
    """Print the command that goes on with an interrupted run."""
    command = f"python -m pipeline train resume={shlex.quote(shown(output))}"
    console.print(f"\nStopped. To go on: {command}", highlight=False, soft_wrap=True)
