"""What the training calls: runs, parameters, metrics, artifacts. Every call writes to the journal and returns."""

from __future__ import annotations

import atexit
import logging
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pipeline.tracking.background import Background
from pipeline.tracking.history import History
from pipeline.tracking.journal import EVENTS_FILE, TRACKING_FOLDER, Journal, RunOfJournal
from pipeline.tracking.lock import lock_run_folder
from pipeline.tracking.names import check_run_key, flat_params, flat_tags, metric_name
from pipeline.tracking.secrets import mask
from pipeline.tracking.sent import SENT_FILE, Sent

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

_LOCK_WAIT_S = 10.0


class Tracker:
    """Records the runs of one run folder: in ``<output>/tracking/events.jsonl`` first, then in MLflow.

    In rank zero only. No call waits for MLflow or fails because of it, except ``flush`` and ``close``,
    which wait for a bounded time. Opening a folder again continues its runs: what an interrupted run had recorded
    at a step stays, and is not recorded again.

    ``part``: a folder inside ``output`` that has a journal of its own, such as that of a fold, so that several
    processes record parts of one run. ``uri`` comes from ``store_uri``; a password in it is used and written nowhere.
    ``artifacts``, from ``artifact_root``, is where a new experiment keeps its files; None: where the store keeps them.
    Raises ``UserError`` when another process records into the same journal.
    """

    def __init__(
        self,
        output: Path,
        *,
        uri: str,
        experiment: str,
        flush_timeout_s: float,
        artifacts: str | None = None,
        part: Path | None = None,
    ) -> None:
        self.output = output.resolve()
        folder = (self.output if part is None else part.resolve()) / TRACKING_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_run_folder(folder, _LOCK_WAIT_S)
        self._experiment = experiment
        self._artifacts = {} if artifacts is None else {"artifacts": artifacts}
        self._flush_timeout_s = flush_timeout_s
        self._journal = Journal(folder / EVENTS_FILE)
        self._history = History.of(self._journal)
        self._id = self._history.identity or uuid.uuid4().hex
        self._running: list[str] = []
        self._sent = Sent.load(folder / SENT_FILE, uri, self._journal.size)
        self._sent.save()
        self._thread = Background(self.output, uri, self._journal, self._sent, lock)
        self._closed = False
        self._thread.start()
        atexit.register(self._close_at_exit)

    def run(self, key: str) -> RunOfJournal:
        """What names the run of this key in other journals."""
        return RunOfJournal(self._id, key)

    @property
    def uri(self) -> str:
        """The store's address without its password."""
        return self._sent.uri

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, None until the store has answered."""
        return self._sent.experiment_id

    def run_ids(self) -> dict[str, str]:
        """MLflow's run ids by key, as far as the store has answered; call ``flush`` before."""
        return dict(self._sent.runs)

    def start_run(
        self,
        key: str,
        name: str,
        *,
        parent: str | RunOfJournal | None,
        tags: Mapping[str, str],
        params: Mapping[str, object],
    ) -> None:
        """Start a run, or continue the one of this key.

        ``parent`` is the key of a run started before, or a run of another journal.
        Nested ``params`` get dotted names. MLflow cannot change a parameter: where a continued run has another
        value now, the first stays and the tag ``changed.<name>`` holds the new one.
        """
        check_run_key(key)
        if isinstance(parent, str) and parent not in self._running:
            raise ValueError(f"run {key!r}: its parent {parent!r} is not running")
        flat = flat_params(params)
        known = self._history.params.setdefault(key, {})
        changed = {f"changed.{name}": value for name, value in flat.items() if known.get(name, value) != value}
        new = {name: value for name, value in flat.items() if name not in known}
        known.update(new)
        if key not in self._running:
            self._running.append(key)
        self._append(
            "start",
            key,
            id=self._id,
            experiment=self._experiment,
            **self._artifacts,
            name=name,
            parent=parent.key if isinstance(parent, RunOfJournal) else parent,
            parent_id=parent.identity if isinstance(parent, RunOfJournal) else self._id,
            tags=flat_tags({**tags, **changed}),
            params=new,
        )

    def log_metrics(self, key: str, metrics: Mapping[str, float], step: int) -> None:
        """Record metric values at ``step``, with the time of this call. ``dice[lung]`` is named ``dice/lung``."""
        self._check_running(key)
        values = {metric_name(name): float(value) for name, value in metrics.items()}
        recorded = self._history.metrics.get(key, set())
        values = {name: value for name, value in values.items() if (name, step) not in recorded}
        if values:
            self._append("metrics", key, step=int(step), values=values)

    def log_artifact(self, key: str, path: Path, folder: str = "") -> None:
        """Send a file or folder of the run folder, as it is at the time of sending, to ``folder`` in the artifacts.

        Raises ``ValueError`` for a path outside the run folder.
        """
        self._check_running(key)
        absolute = path.parent.resolve() / path.name
        if not absolute.is_relative_to(self.output):
            raise ValueError(f"{path} is not in the run folder {self.output}")
        self._append("artifact", key, path=absolute.relative_to(self.output).as_posix(), folder=folder)

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        self._check_running(key)
        self._append("tags", key, tags=flat_tags(tags))

    def end_run(self, key: str, status: Status) -> None:
        """End a run; end its children first."""
        self._check_running(key)
        self._running.remove(key)
        self._append("end", key, id=self._id, status=status)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything recorded so far is in MLflow; True when it is.

        False after ``timeout_s`` (by default the flush timeout), and at once while the store cannot be reached.
        """
        return self._thread.flush(self._flush_timeout_s if timeout_s is None else timeout_s)

    def close(self, status: Status | None = "FAILED") -> None:
        """End runs that still go on with ``status``, send what is left for at most the flush timeout, and stop.

        None: they go on, another process ends them.
        """
        if self._closed:
            return
        if status is not None:
            for key in reversed(self._running[:]):
                self.end_run(key, status)
        self._closed = True
        atexit.unregister(self._close_at_exit)
        if not self._thread.stop(self._flush_timeout_s):
            log.warning(
                "Not everything has reached MLflow at %s. It is kept in %s; send it later with:\n"
                "    python -m pipeline sync run=%s",
                mask(self.uri),
                self._journal.path,
                self.output,
            )
        elif self._sent.refused:
            log.warning("MLflow did not take %d entries; see %s", len(self._sent.refused), self._sent.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close("FINISHED")
        else:
            # KeyboardInterrupt and SystemExit (which Lightning's SIGTERM exception is) are no Exception.
            self.close("FAILED" if issubclass(kind, Exception) else "KILLED")

    def _close_at_exit(self) -> None:
        # The interpreter is shutting down: what is loaded still works, but MLflow cannot be imported any more.
        if not self._thread.connected:
            self._flush_timeout_s = 0.0
        self.close()

    def _check_running(self, key: str) -> None:
        if self._closed or key not in self._running:
            raise ValueError(f"run {key!r} is not running")

    def _append(self, event: str, key: str, **content: Any) -> None:
        self._journal.append({"event": event, "run": key, "time": time.time_ns() // 1_000_000, **content})
        self._thread.wake()
