"""What Ray runs for a job, on the node. Standard library only, sent by value: workers need not find our package."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.launch.process import CommandProcess

# Of the node where the job runs, not of the process that submitted it.
OF_THE_NODE = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "HOSTNAME",
    "ONEAPI_DEVICE_SELECTOR",
    "ROCR_VISIBLE_DEVICES",
    "TMPDIR",
)


class RunningCommand:
    """A Ray actor: starts the command when it is made, and holds the job's resources until it is killed.

    An actor, not a task: what Ray does to cancel a task that gives values as they come did not reach it (Ray 2.60).
    """

    def __init__(self, command: tuple[str, ...], log: str, environment: Mapping[str, str], folder: str) -> None:
        of_the_node = {name: os.environ[name] for name in OF_THE_NODE if name in os.environ}
        of_others = {name: value for name, value in environment.items() if name not in OF_THE_NODE}
        self._process = CommandProcess(command, Path(log), of_others | of_the_node, Path(folder), apart=True)
        self._deadline: float | None = None

    def ended(self) -> tuple[bool, int | None]:
        """Whether the command has ended, and its exit status; one that was to stop is killed when its time is over."""
        if self._process.wait(0):
            return True, self._process.status
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._process.kill()
            return True, None
        return False, None

    def stop(self, seconds: float) -> None:
        """Ask the command, by SIGTERM, to save and end within so many seconds."""
        self._process.ask(signal.SIGTERM)
        self._deadline = time.monotonic() + seconds
