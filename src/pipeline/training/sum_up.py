"""The end of a run whose folds are processes: summarised once, by whichever comes to it first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.json_file import read_json
from pipeline.tracking.lock import Lock
from pipeline.tracking.tracker import Status
from pipeline.training.crossval import Pooled, start_parent
from pipeline.training.engine import split_choice
from pipeline.training.experiment import Experiment
from pipeline.training.jobs import JOBS_FOLDER, Launched
from pipeline.training.prepare import Opened
from pipeline.training.run_folder import SUMMARY_FILE
from pipeline.training.tracked import open_tracker, send_rest

LONGEST_WAIT = 3600.0  # s, for another process that measures the engine or summarises


def sum_up(experiment: Experiment, folds: Sequence[int]) -> dict[str, Any]:
    """The content of summary.json, made now unless that was done before."""
    output = experiment.output
    with one_at_a_time(output, "summary"):
        if not Launched(tuple(folds), None).summarised(output):
            send_rest(experiment.settings, output, folds)
            tracker = open_tracker(experiment.settings, output)
            status: Status = "FAILED"
            try:
                if tracker is not None:
                    start_parent(tracker, experiment.settings, output, {}, split_choice(experiment.resolved())[1])
                Pooled(experiment, folds, tracker).summarise()
                status = "FINISHED"
            finally:
                if tracker is not None:
                    tracker.close(status)
    summary: dict[str, Any] = read_json(output / SUMMARY_FILE)
    return summary


def end_parent(opened: Opened, status: Status) -> None:
    """End the MLflow run of a cross-validation that does not come to its end."""
    tracker = open_tracker(opened.settings, opened.output)
    if tracker is not None:
        start_parent(tracker, opened.settings, opened.output, {}, {})
        tracker.close(status)


@contextmanager
def one_at_a_time(output: Path, what: str) -> Iterator[None]:
    """Of the processes of one run, only one is inside; raises UserError after an hour."""
    lock = Lock(output / JOBS_FOLDER / f".{what}.lock")
    if not lock.acquire(LONGEST_WAIT):
        raise UserError(f"{lock.path} is held by {lock.holder()} for more than {LONGEST_WAIT / 60:.0f} minutes")
    try:
        yield
    finally:
        lock.release()
