"""A job's command as a process on the machine where it runs. Standard library only: it runs on the nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Before the command takes its place, this asks the kernel to kill it when the one who started it is gone: after
# a SIGKILL on that one, a second run of the job would meet the first.
_TIED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(sys.argv[1]):
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        print(f"{sys.argv[2]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)
"""


class CommandProcess:
    """A running command, killed with the process that started it; ``apart``: in a process group of its own.

    Its standard output and error are appended to ``log``.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path, *, apart: bool
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(environment),
                cwd=folder,
                start_new_session=apart,
            )

    @property
    def pid(self) -> int:
        """Its number, which it keeps when the command takes its place."""
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def status(self) -> int | None:
        """Exit status as shells have it, 128 + n after signal n; None while it runs and after a SIGKILL."""
        code = self._process.returncode
        if code is None or code == -signal.SIGKILL:
            return None
        return code if code >= 0 else 128 - code

    def ask(self, number: int) -> None:
        """Send a signal to the command itself; what it started is its own to end."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL a command that is apart, and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
