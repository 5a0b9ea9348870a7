"""The MLflow run of a sweep, of which the runs of the trials are parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.schema import TrainConfig
from pipeline.sweep.folder import CONFIG_FILE, SWEEP_FILE, SweepFolder
from pipeline.tracking.journal import RunOfJournal
from pipeline.tracking.tracker import Status, Tracker
from pipeline.training.tracked import open_tracker

SWEEP = "sweep"  # key of its run


def begin_run(
    settings: TrainConfig, folder: SweepFolder, params: Mapping[str, Any], parent: RunOfJournal | None = None
) -> RunOfJournal | None:
    """Begin the run of a sweep, or go on with it, for any of its processes; None when tracking is off."""
    with folder.one_at_a_time("tracking"):
        tracker = open_tracker(settings, folder.path)
        if tracker is None:
            return None
        _start(tracker, folder.path, params, parent)
        for name in (SWEEP_FILE, CONFIG_FILE):
            tracker.log_artifact(SWEEP, folder.path / name)
        tracker.close(None)
        return tracker.run(SWEEP)


def end_run(
    settings: TrainConfig,
    folder: SweepFolder,
    status: Status,
    *,
    scores: Mapping[int, Mapping[str, float]] | None = None,
    best: Mapping[str, float] | None = None,
    files: Mapping[Path, str] | None = None,
) -> None:
    """End the run of a sweep. ``scores``: of each finished trial. ``files``: to send, and into which folder there."""
    with folder.one_at_a_time("tracking"):
        tracker = open_tracker(settings, folder.path)
        if tracker is None:
            return
        _start(tracker, folder.path, {}, None)
        for number, values in sorted((scores or {}).items()):
            tracker.log_metrics(SWEEP, values, number)
        if best:
            tracker.log_metrics(SWEEP, best, 0)
        for path, into in (files or {}).items():
            tracker.log_artifact(SWEEP, path, into)
        tracker.close(status)


def _start(tracker: Tracker, output: Path, params: Mapping[str, Any], parent: RunOfJournal | None) -> None:
    tracker.start_run(SWEEP, output.name, parent=parent, tags={"kind": "sweep"}, params=params)
