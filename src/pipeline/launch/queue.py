"""Runs jobs to their end: as many at once as the engine takes, lost ones again while retries last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pipeline.launch.job import Engine, Job, Submitted

MISTAKE = 2  # exit status of a user's mistake: the same again would fail again
STOPPED = (130, 138, 143)  # a signal asked the job to stop


class Source(Protocol):
    """Where jobs come from."""

    def next(self) -> Job | None:
        """The next job, None while there is none."""
        ...

    def ended(self, job: Job, status: int | None) -> bool:
        """Whether ``job``, which ended with this status, has done what it was for."""
        ...

    def failed(self, job: Job, status: int | None) -> None:
        """It is not tried again."""
        ...


@dataclass
class Entry:
    """A job and how far it is."""

    job: Job
    state: Literal["waiting", "running", "done", "failed", "stopped", "again"] = "waiting"
    tries: int = 0
    status: int | None = None  # exit status of the last try that ended
    submitted: Submitted | None = None
    begun: float = field(default_factory=time.time)

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ("done", "failed", "stopped")


class Queue:
    """Jobs of a source on an engine.

    ``retries``: how often a job is started again after it was lost or failed; after a user's mistake never.
    ``poll``: s between looks. ``grace``: s that stopped jobs have to save before :meth:`run` leaves them.
    """

    def __init__(self, source: Source, engine: Engine, *, retries: int, poll: float, grace: float) -> None:
        self.entries: list[Entry] = []
        self._source = source
        self._engine = engine
        self._retries = retries
        self._poll = poll
        self._grace = grace

    def run(self, show: Callable[[Sequence[Entry]], None], stopping: Callable[[], bool]) -> list[Entry]:
        """Until all have ended, or ``stopping`` says so and they have been asked to; ``show`` sees every look."""
        while not stopping():
            for entry in self._under_way():
                self._look(entry)
            show(self.entries)
            self._fill()
            if not any(not entry.over for entry in self.entries):
                return self.entries
            time.sleep(self._poll)
        self._stop(show)
        return self.entries

    def submit_all(self) -> list[Entry]:
        """Hand everything to an engine that queues by itself, and leave."""
        self._fill()
        return self.entries

    def _under_way(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.submitted is not None]

    def _fill(self) -> None:
        """Start what waits to be started again, then new jobs."""
        at_once = math.inf if self._engine.at_once is None else self._engine.at_once
        room = at_once - len(self._under_way())
        chosen: list[Entry] = []
        for entry in self.entries:
            if entry.state == "again" and len(chosen) < room:
                chosen.append(entry)
        while len(chosen) < room and (job := self._source.next()) is not None:
            self.entries.append(entry := Entry(job))
            chosen.append(entry)
        if not chosen:
            return
        for entry, submitted in zip(chosen, self._engine.submit_all([entry.job for entry in chosen]), strict=True):
            entry.submitted = submitted
            entry.tries += 1
            entry.state = "waiting"

    def _look(self, entry: Entry) -> None:
        assert entry.submitted is not None
        state = entry.submitted.state()
        if state != "ended":
            entry.state = state
            return
        entry.status = entry.submitted.exit_status()
        entry.submitted = None
        if self._source.ended(entry.job, entry.status):
            entry.state = "done"
        elif entry.status == MISTAKE or entry.tries > self._retries:
            entry.state = "failed"
            self._source.failed(entry.job, entry.status)
        else:
            entry.state = "again"

    def _stop(self, show: Callable[[Sequence[Entry]], None]) -> None:
        for entry in self._under_way():
            assert entry.submitted is not None
            entry.submitted.cancel()
        deadline = time.monotonic() + self._grace
        while self._under_way() and time.monotonic() < deadline:
            for entry in self._under_way():
                assert entry.submitted is not None
                if entry.submitted.state() == "ended":
                    entry.status, entry.submitted = entry.submitted.exit_status(), None
                    entry.state = "done" if self._source.ended(entry.job, entry.status) else "stopped"
            show(self.entries)
            time.sleep(min(self._poll, 0.2))
        for entry in self.entries:
            if not entry.over:
                entry.state = "stopped"
