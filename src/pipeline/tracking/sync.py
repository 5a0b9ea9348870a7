"""Send what a finished or broken-off run could not send."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking.history import History
from pipeline.tracking.journal import EVENTS_FILE, TRACKING_FOLDER, Journal
from pipeline.tracking.lock import lock_run_folder
from pipeline.tracking.mlflow_store import CREDENTIALS, MlflowStore, is_unknown_user, reason
from pipeline.tracking.secrets import HIDDEN, mask
from pipeline.tracking.sender import Sender
from pipeline.tracking.sent import SENT_FILE, Sent

_LOCK_WAIT_S = 10.0


@dataclass(frozen=True)
class SyncReport:
    """What ``sync`` did: events sent now, runs ended for a process that died, entries that MLflow refused."""

    uri: str
    events: int
    ended: tuple[str, ...]
    refused: tuple[str, ...]
    run_ids: dict[str, str]


def sync(output: Path, uri: str | None = None, progress: Callable[[int, int], None] | None = None) -> SyncReport:
    """Send the unsent part of a run folder's journals; may be repeated, nothing is recorded twice.

    Without ``uri`` the store used before. With another store everything is sent there. Runs whose process died
    without an end are ended as KILLED. ``progress`` gets bytes done and bytes in all, of each journal.
    Raises ``UserError`` without a journal, while the run still goes on, and when the store cannot be used.
    """
    output = output.resolve()
    if not (output / TRACKING_FOLDER / EVENTS_FILE).is_file():
        raise UserError(f"{output} is not a run folder: it has no tracking/events.jsonl", "Give the folder of a run.")
    reports = [_sync(run, folder, uri, progress) for run, folder in journals_of(output)]
    return SyncReport(
        reports[0].uri,
        sum(report.events for report in reports),
        tuple(key for report in reports for key in report.ended),
        tuple(refusal for report in reports for refusal in report.refused),
        {key: run_id for report in reports for key, run_id in report.run_ids.items()},
    )


def journals_of(output: Path) -> list[tuple[Path, Path]]:
    """The folders of the journals of a run, each with the run folder that it belongs to.

    Its own, then those of its folds, then those of the trials of a sweep with theirs: parents before their parts.
    """
    folds = sorted(path.parent for path in output.glob(f"fold_*/{TRACKING_FOLDER}/{EVENTS_FILE}"))
    below = (
        path.parent.parent for depth in ("*", "*/*") for path in output.glob(f"{depth}/{TRACKING_FOLDER}/{EVENTS_FILE}")
    )
    trials = sorted(path for path in below if not path.name.startswith("fold_"))
    trials = [path for path in trials if path.parent not in trials]  # which finds them itself
    found = [(output, output / TRACKING_FOLDER), *((output, fold) for fold in folds)]
    return found + [journal for trial in trials for journal in journals_of(trial)]


def _sync(output: Path, folder: Path, uri: str | None, progress: Callable[[int, int], None] | None) -> SyncReport:
    lock = lock_run_folder(folder, _LOCK_WAIT_S)
    try:
        journal = Journal(folder / EVENTS_FILE)
        try:
            history = History.of(journal)
            for key in reversed(history.open_runs):
                time_ms = time.time_ns() // 1_000_000
                end = {"event": "end", "run": key, "time": time_ms, "id": history.identity, "status": "KILLED"}
                journal.append(end)
            sent = Sent.load(folder / SENT_FILE, uri or _last_uri(folder), journal.size)
            before = len(journal.read(sent.offset, most=journal.size))
            _send(output, journal, sent, uri or sent.uri, progress)
        finally:
            journal.close()
    finally:
        lock.release()
    return SyncReport(sent.uri, before, tuple(history.open_runs), tuple(sent.refused), dict(sent.runs))


def _send(output: Path, journal: Journal, sent: Sent, uri: str, progress: Callable[[int, int], None] | None) -> None:
    def report() -> bool:
        if progress is not None:
            progress(sent.offset, journal.size)
        return True

    try:
        Sender(output, journal, sent, MlflowStore(uri)).send(report)
    except Exception as error:
        raise UserError(
            f"MLflow at {mask(uri)} cannot be used ({reason(error)})",
            CREDENTIALS
            if is_unknown_user(error)
            else "Start the server, or correct tracking.uri; then repeat the command: nothing is sent twice.",
        ) from error


def _last_uri(folder: Path) -> str:
    recorded = Sent.last_uri(folder / SENT_FILE)
    if recorded is None or HIDDEN in recorded:
        raise UserError(
            f"{folder.parent} does not say which MLflow store it belongs to"
            if recorded is None
            else f"the address {recorded} needs its password, which is not stored",
            "Name the store: tracking.uri=...",
        )
    return recorded
