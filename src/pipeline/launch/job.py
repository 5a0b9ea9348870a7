"""A job and the engines that run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class Job:
    """A command to run once somewhere: one fresh process (or, with several devices, its processes)."""

    name: str  # fold_0, trial_0012
    command: tuple[str, ...]  # argv; argv[0] is sys.executable
    log: Path  # its standard output and error are appended there
    environment: Mapping[str, str] = field(default_factory=dict)  # set besides that of the submitting process


class Submitted(Protocol):
    """A job that an engine has taken."""

    id: str  # what the engine calls it: process id, Slurm job id, Ray task id

    def state(self) -> Literal["waiting", "running", "ended"]: ...

    def exit_status(self) -> int | None:
        """After "ended"; None: lost without one (node gone, cancelled, killed)."""

    def cancel(self) -> None: ...


class Engine(Protocol):
    """Runs jobs."""

    at_once: int | None  # most jobs at the same time; None: the engine queues them itself

    def submit(self, job: Job) -> Submitted:
        """Raises UserError."""

    def describe(self, job: Job) -> str:
        """For --dry-run: the command line, or the sbatch script."""

    def close(self) -> None: ...
