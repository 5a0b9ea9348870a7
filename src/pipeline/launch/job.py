"""A job, and what runs jobs: the interface that each engine (this machine, Slurm, Ray) has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

State = Literal["waiting", "running", "ended"]


@dataclass(frozen=True)
class Job:
    """A command to run once somewhere: one fresh process (or, with several devices, its processes)."""

    name: str  # fold_0, trial_0012
    command: tuple[str, ...]  # argv
    log: Path  # its standard output and error are appended there
    environment: Mapping[str, str] = field(default_factory=dict)  # set besides that of the submitting process
    folder: Path = field(default_factory=Path.cwd)  # in which it runs


class Submitted(Protocol):
    """A job in the hands of an engine."""

    id: str  # what the engine calls it: process id, Slurm job id, Ray task id

    def state(self) -> State:
        """Where it is now."""
        ...

    def exit_status(self) -> int | None:
        """Of an ended job; None: lost without one (node gone, cancelled, killed)."""
        ...

    def cancel(self) -> None:
        """Ask it to stop; it saves and ends."""
        ...


class Engine(Protocol):
    """Runs jobs."""

    at_once: int | None  # most jobs at the same time; None: the engine queues them itself
    cores: int | None  # of a job; None: as many as it finds
    outlived: bool  # its jobs go on when this process ends

    def expect(self, jobs: int) -> None:
        """Told before the first job: how many are to come."""
        ...

    def submit_all(self, jobs: Sequence[Job]) -> Sequence[Submitted]:
        """Take these jobs; raises UserError where one cannot be taken."""
        ...

    def describe(self, job: Job) -> str:
        """What would be run, for ``--dry-run``."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...
