"""The tracking of a run: one journal for the cross-validation, one for each fold, so that folds can be processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.config.schema import TrainConfig
from pipeline.errors import UserError
from pipeline.tracking.history import identity_of
from pipeline.tracking.journal import TRACKING_FOLDER, RunOfJournal
from pipeline.tracking.sent import SENT_FILE, Sent
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.uri import artifact_root, store_uri
from pipeline.training.duration import seconds_of

PARENT = "parent"  # key of the cross-validation's MLflow run


def fold_key(index: int) -> str:
    """The name of a fold in folders and in tracking."""
    return f"fold_{index}"


def open_tracker(settings: TrainConfig, output: Path, fold: int | None = None) -> Tracker | None:
    """The recorder of the run in ``output``, or of one of its folds; None when tracking is off."""
    tracking = settings.tracking
    if not tracking.enabled:
        return None
    return Tracker(
        output,
        uri=store_uri(tracking.uri, Path("outputs", "mlflow.db").absolute()),
        experiment=tracking.experiment or settings.name,
        artifacts=artifact_root(tracking.artifacts),
        flush_timeout_s=seconds_of(tracking.flush_timeout),
        part=None if fold is None else output / fold_key(fold),
    )


def parent_of_run(settings: TrainConfig) -> RunOfJournal | None:
    """The run of which that of a cross-validation is a part, such as that of a sweep."""
    if settings.tracking.parent is None:
        return None
    identity, _, key = settings.tracking.parent.partition("/")
    return RunOfJournal(identity, key)


def parent_of_folds(output: Path) -> RunOfJournal:
    """The run of which the folds in ``output`` are parts; its journal has begun before theirs."""
    identity = identity_of(output / TRACKING_FOLDER)
    assert identity is not None
    return RunOfJournal(identity, PARENT)


def send_rest(settings: TrainConfig, output: Path, folds: Sequence[int]) -> None:
    """Send what the processes of finished folds did not come to send; those that still send are left to it."""
    trackers: list[Tracker] = []
    for fold in folds:
        with suppress(UserError):
            tracker = open_tracker(settings, output, fold)
            trackers += [] if tracker is None else [tracker]
    for tracker in trackers:
        tracker.close()


def fold_run_ids(output: Path, folds: Sequence[int]) -> dict[str, str]:
    """MLflow's ids of the runs of these folds, as far as they are there."""
    found: dict[str, str] = {}
    for key in map(fold_key, folds):
        runs = Sent.runs_in(output / key / TRACKING_FOLDER / SENT_FILE)
        found |= {key: runs[key]} if key in runs else {}
    return found
