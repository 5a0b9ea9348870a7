"""Commands in processes of their own that start at once: forked from one that has imported all and computed nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

LOADED = ["mlflow.tracking", "pipeline.commands.train", "pipeline.evaluation.summary", "pipeline.training.session"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(LOADED)


class Job:
    """``python -m pipeline`` with these arguments, in a process group of its own."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        spare_memory: int | None = None,
    ) -> None:
        self.log = log
        work = (list(arguments), log, dict(environment or {}), folder or Path.cwd(), spare_memory)
        self.process: ForkServerProcess = _context.Process(target=_main, args=work)
        self.process.start()

    @property
    def pid(self) -> int:
        """Its process id, which is that of its group too."""
        pid = self.process.pid
        assert pid is not None
        return pid

    def wait(self, seconds: float) -> int | None:
        """Exit status, negative for a signal; None if it is still there after ``seconds``."""
        self.process.join(seconds)
        return self.process.exitcode

    def end(self, seconds: float = 300.0) -> int:
        """Exit status of a process that is to end by itself; what it said is the message where it does not."""
        status = self.wait(seconds)
        if status is None:
            self.kill()
            raise AssertionError(f"still there after {seconds} s:\n{self.said()}")
        return status

    def kill(self) -> None:
        """SIGKILL the process and all that it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just been forked, and leads no group yet
            self.process.kill()
        self.process.join()

    def said(self) -> str:
        """What it and earlier ones wrote to the log."""
        return self.log.read_text(errors="replace")[-6000:]

    def wait_for(self, path: Path, seconds: float = 120.0) -> None:
        """Until a file is there; AssertionError if the process ends before."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert self.wait(0.005) is None and time.monotonic() < deadline, self.said()


def _main(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path, spare_memory: int | None
) -> None:
    os.setsid()
    os.environ.update(environment)
    os.chdir(folder)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    if spare_memory is not None:
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + spare_memory, now + spare_memory))
    from pipeline.cli import main

    status = main(list(arguments))
    sys.stdout.flush()
    sys.exit(status)
