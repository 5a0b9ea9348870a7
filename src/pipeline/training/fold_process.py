"""What the process of one fold does, wherever a launcher started it."""

from __future__ import annotations

import logging

from pipeline.errors import UserError
from pipeline.ranks import rank
from pipeline.tracking.tracker import Status
from pipeline.training.before import Before
from pipeline.training.begin import begin, tags_of
from pipeline.training.finished import is_finished
from pipeline.training.fold_run import FoldRun
from pipeline.training.interrupt import Stopped
from pipeline.training.jobs import Launched, log_of
from pipeline.training.prepare import Opened, prepare, use_device
from pipeline.training.recorded_fold import train_fold
from pipeline.training.sum_up import one_at_a_time, sum_up
from pipeline.training.tracked import fold_key, open_tracker


def train_one(opened: Opened, index: int) -> int:
    """Train one fold and, where it is the last of its run, summarise the run; the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings, output = opened.settings, opened.output
    launched = Launched.read(output)
    if launched is None or index not in launched.folds:
        raise UserError(f"fold={index}: not a fold that was launched in {output}", "launch=local starts this command")
    use_device(settings)
    prepared = prepare(opened, first=Before.read(output))
    fold = prepared.experiment.folds[index]
    if rank() > 0:
        experiment, _, _ = begin(prepared, (before := Before.read(output)), before)
        FoldRun(experiment, fold).assist()
        return 0
    with one_at_a_time(output, "begin"):  # the first chooses the engine, the others take it from there
        before = Before.read(output)
        experiment, engine, found = begin(prepared, before, before, part=output / fold_key(index))
    opened.console.print(engine.in_words(), highlight=False, soft_wrap=True)
    if not is_finished(output / fold_key(index)):
        tracker = open_tracker(settings, output, index)
        status: Status = "FAILED"
        try:
            train_fold(experiment, fold, tracker, tags_of(found, settings.task), log=log_of(output, index))
            status = "FINISHED"
        except Stopped:
            status = "KILLED"
            raise
        finally:
            if tracker is not None:
                tracker.close(status)
    if not launched.unfinished(output):
        sum_up(experiment, launched.folds)
    return 0
