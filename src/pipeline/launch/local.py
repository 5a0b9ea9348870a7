"""Several processes on this machine, its cores and GPUs divided among them."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.errors import UserError
from pipeline.launch.job import Job, State
from pipeline.launch.process import CommandProcess

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class _Place:
    """What one process at a time may use."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...]


@dataclass
class Local:
    """Processes of this machine. Each has cores of its own (its affinity) and GPUs of its own (CUDA_VISIBLE_DEVICES).

    ``processes``: at once; null: one per job, as far as cores and GPUs go. ``cores``: of each; null: all divided by the
    processes. ``gpus``: of each.
    """

    processes: int | None = None
    cores: int | None = None
    gpus: int = 0
    at_once: int | None = field(init=False, default=None)
    outlived: bool = field(init=False, default=False)
    _free: list[_Place] = field(init=False, repr=False, default_factory=list)

    def expect(self, jobs: int) -> None:
        """Divide the machine; raises UserError where more is asked for than it has."""
        cores, gpus = sorted(os.sched_getaffinity(0)), visible_gpus()
        at_once = self.processes
        if at_once is None:
            most = len(gpus) // self.gpus if self.gpus else len(cores) // (self.cores or 1)
            at_once = min(max(1, jobs), most)
        each = self.cores or len(cores) // max(1, at_once)
        if at_once < 1 or each < 1 or at_once * each > len(cores) or at_once * self.gpus > len(gpus):
            raise UserError(
                f"launch: {at_once} process(es) with {each} core(s) and {self.gpus} GPU(s) each; this machine has "
                f"{len(cores)} core(s) and {len(gpus)} GPU(s)",
                "set launch.engine.processes, launch.engine.cores and launch.engine.gpus to what it has",
            )
        self.at_once, self.cores = at_once, each
        self._free = [
            _Place(tuple(cores[n * each : (n + 1) * each]), tuple(gpus[n * self.gpus : (n + 1) * self.gpus]))
            for n in range(at_once)
        ]

    def submit_all(self, jobs: Sequence[Job]) -> list[Process]:
        """Start them at once; never more than there are places."""
        return [self._start(job) for job in jobs]

    def _start(self, job: Job) -> Process:
        """Start it in a session of its own: Ctrl-C in the terminal reaches it only through ``cancel``."""
        place = self._free.pop(0)
        environment = {**os.environ, **job.environment, **self._environment(place)}
        process = CommandProcess(job.command, job.log, environment, job.folder, apart=True)
        with suppress(ProcessLookupError):
            os.sched_setaffinity(process.pid, place.cores)  # before it starts threads, which takes it longer
        return Process(process, lambda: self._free.append(place))

    def describe(self, job: Job) -> str:
        """The command line."""
        return shlex.join(job.command)

    def close(self) -> None:
        """Nothing is held."""

    def _environment(self, place: _Place) -> dict[str, str]:
        return {VISIBLE: ",".join(place.gpus)} if self.gpus else {}


class Process:
    """A job in a process of this machine."""

    def __init__(self, process: CommandProcess, give_back: Callable[[], None]) -> None:
        self.id = str(process.pid)
        self._process = process
        self._give_back: Callable[[], None] | None = give_back

    def state(self) -> State:
        """Running until it has ended; then its place is free for another."""
        if not self._process.wait(0):
            return "running"
        if self._give_back is not None:
            give_back, self._give_back = self._give_back, None
            give_back()
        return "ended"

    def exit_status(self) -> int | None:
        """128 + n after signal n, None after a SIGKILL."""
        return self._process.status

    def cancel(self) -> None:
        """SIGTERM to the process, which saves, ends its own and then itself."""
        self._process.ask(signal.SIGTERM)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
