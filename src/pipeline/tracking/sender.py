"""Sends the journal to MLflow, in order: everything at least once, and nothing recorded twice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pipeline.tracking.journal import Event, Journal, RunOfJournal
from pipeline.tracking.mlflow_store import OUTPUT_TAG, PARENT_TAG, MlflowStore, Point, is_refusal, reason
from pipeline.tracking.sent import Sent

log = logging.getLogger(__name__)

MOST_POINTS = 20_000  # metric points sent between two records of the position


class ParentNotSent(Exception):
    """The parent of a run is not in the store yet: the journal that records it has not been sent so far."""


class Sender:
    """Moves the position in ``sent`` towards the end of the journal.

    Each step can be repeated: runs are found again by their key, metric points carry the time of their event (a
    point is unique in run, name, step, time and value), parameters, tags and artifacts replace equal ones. So a
    crash between a step and the record of the position costs time only.
    """

    def __init__(self, output: Path, journal: Journal, sent: Sent, store: MlflowStore) -> None:
        self._output = output
        self._journal = journal
        self._sent = sent
        self._store = store
        self._points: dict[str, list[Point]] = {}
        if not all(store.has_run(run_id) for run_id in sent.runs.values()):
            log.warning("the store at %s does not have these runs any more; everything is sent again", sent.uri)
            sent.reset()

    def send(self, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Send until the end of the journal; False when ``go_on`` said to stop before. Raises what MLflow raises."""
        self._points.clear()
        while events := self._journal.read(self._sent.offset):
            superseded = _superseded(events)
            for number, (event, end) in enumerate(events):
                if event["event"] == "metrics":
                    points = self._points.setdefault(event["run"], [])
                    points += [(name, value, event["time"], event["step"]) for name, value in event["values"].items()]
                    if sum(map(len, self._points.values())) >= MOST_POINTS:
                        self._send_points()
                        self._record(end)
                        if not go_on():
                            return False
                    continue
                self._send_points()
                if number not in superseded:
                    self._send_event(event)
                if event["event"] in ("start", "artifact", "end"):
                    self._record(end)
                if not go_on():
                    return False
            self._send_points()
            self._record(events[-1][1])
            if not go_on():
                return False
        return True

    def _send_event(self, event: Event) -> None:
        if event["event"] == "start":
            self._start(event)
        elif event["event"] == "artifact":
            self._artifact(event)
        elif event["event"] == "tags":
            self._unless_refused(event, lambda run_id: self._store.set_tags(run_id, event["tags"]))
        elif event["event"] == "end":
            self._unless_refused(event, lambda run_id: self._end(event, run_id))

    def _start(self, event: Event) -> None:
        key = event["run"]
        if self._sent.experiment_id is None:
            self._sent.experiment_id = self._store.experiment(event["experiment"], event.get("artifacts"))
        tags = {**event["tags"], OUTPUT_TAG: str(self._output)}
        if event["parent"] is not None:
            tags[PARENT_TAG] = self._parent(event)
        if key in self._sent.runs:
            run = self._store.run(self._sent.runs[key])
            deleted = run is not None and run.info.lifecycle_stage == "deleted"
            self._store.resume_run(self._sent.runs[key], tags, deleted=deleted)
        else:
            self._sent.runs[key] = self._store.start_run(
                self._sent.experiment_id, _unique(event), event["name"], event["time"], tags
            )
        self._unless_refused(event, lambda run_id: self._store.log_params(run_id, event["params"]))

    def _parent(self, event: Event) -> str:
        """MLflow's id of the run's parent; raises ParentNotSent where only another journal can send it."""
        if event["parent_id"] == event["id"]:
            return self._sent.runs.get(event["parent"], "")
        assert self._sent.experiment_id is not None
        parent = RunOfJournal(event["parent_id"], event["parent"])
        found = self._store.find_run(self._sent.experiment_id, parent.unique_key)
        if found is None:
            raise ParentNotSent(f"the run of which {event['name']!r} is a part is not there yet")
        return str(found.info.run_id)

    def _end(self, event: Event, run_id: str) -> None:
        self._store.end_run(run_id, event["status"], event["time"])
        if self._sent.experiment_id is not None:
            self._store.delete_copies(self._sent.experiment_id, _unique(event), run_id)

    def _artifact(self, event: Event) -> None:
        path = self._output / event["path"]
        if path.exists():
            self._unless_refused(event, lambda run_id: self._store.log_artifact(run_id, path, event["folder"]))
        else:
            self._refused(event, f"{path} is not there any more")

    def _send_points(self) -> None:
        for key, points in self._points.items():
            event = {"event": "metrics", "run": key}
            self._unless_refused(event, lambda run_id, points=points: self._store.log_metrics(run_id, points))  # type: ignore[misc]
        self._points.clear()

    def _unless_refused(self, event: Event, call: Callable[[str], None]) -> None:
        run_id = self._sent.runs.get(event["run"])
        if run_id is None:
            self._refused(event, "the journal does not say how that run started")
            return
        try:
            call(run_id)
        except Exception as error:
            if not is_refusal(error):
                raise
            self._refused(event, reason(error))

    def _refused(self, event: Event, why: str) -> None:
        log.warning("MLflow does not take %s of run %s: %s", event["event"], event["run"], why)
        self._sent.refused.append(f"{event['event']} of {event['run']}: {why}")

    def _record(self, offset: int) -> None:
        # First the journal: a position beyond its end would hide what is appended after a power failure.
        self._journal.to_disk()
        self._sent.offset = offset
        self._sent.save()


def _unique(event: Event) -> str:
    return RunOfJournal(event["id"], event["run"]).unique_key


def _superseded(events: list[tuple[Event, int]]) -> set[int]:
    """Numbers of the artifact events that a later one repeats."""
    last: dict[tuple[str, str, str], int] = {}
    repeated = set()
    for number, (event, _) in enumerate(events):
        if event["event"] == "artifact":
            artifact = (event["run"], event["path"], event["folder"])
            if artifact in last:
                repeated.add(last[artifact])
            last[artifact] = number
    return repeated
