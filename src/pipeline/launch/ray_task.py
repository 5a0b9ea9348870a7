"""What Ray runs for a job, on the node. Standard library only, sent by value: workers need not find our package."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
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


def run_command(
    command: tuple[str, ...], log: str, environment: Mapping[str, str], folder: str, stop_seconds: float
) -> Iterator[str | int | None]:
    """Gives the name of the node when the command has started, and its exit status when it has ended.

    Cancelled (Ray raises in this thread), the command gets SIGTERM, and SIGKILL if it is there ``stop_seconds`` later.
    """
    of_the_node = {name: os.environ[name] for name in OF_THE_NODE if name in os.environ}
    of_others = {name: value for name, value in environment.items() if name not in OF_THE_NODE}
    process = CommandProcess(command, Path(log), of_others | of_the_node, Path(folder), apart=True)
    try:
        yield socket.gethostname()
        while not process.wait(0.2):
            pass
    except BaseException:
        process.ask(signal.SIGTERM)
        if not process.wait(stop_seconds):
            process.kill()
        raise
    yield process.status
