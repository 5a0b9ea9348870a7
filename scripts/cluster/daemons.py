"""Processes that outlive the command that starts them: begun, found again by their pid file, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn


def fail(cause: str, *remedies: str) -> NoReturn:
    """End with exit status 2: the cause, and what to do."""
    print(f"error: {cause}", *(f"    {remedy}" for remedy in remedies), sep="\n", file=sys.stderr)
    sys.exit(2)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def write_secret(path: Path, text: str) -> None:
    """A file that its owner alone can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def start(command: Sequence[str], folder: Path, name: str, environment: Mapping[str, str]) -> None:
    """A session of its own, with ``name.log`` and ``name.pid`` in ``folder``; its working folder is ``folder`` too."""
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / f"{name}.pid").write_text(f"{process.pid} {_born(process.pid)}\n")


def process_of(folder: Path, name: str) -> int | None:
    """The process that was started under this name, None when it is gone."""
    try:
        pid, born = (folder / f"{name}.pid").read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _born(int(pid)) == born else None


def stop(folder: Path, name: str, wait_s: float = 15.0) -> None:
    """End the session: SIGTERM, and SIGKILL for what is left after ``wait_s``."""
    pid = process_of(folder, name)
    if pid is not None:
        for number, seconds in ((signal.SIGTERM, wait_s), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                break
            wait_until(lambda: process_of(folder, name) is None, seconds)
    (folder / f"{name}.pid").unlink(missing_ok=True)


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true within this time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def answers(url: str) -> bool:
    """Whether there is an HTTP server, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def wait_for_answer(url: str, folder: Path, name: str, seconds: float) -> None:
    """Until the process of this name answers; fails with the end of its log where it does not."""
    wait_until(lambda: process_of(folder, name) is None or answers(url), seconds)
    if process_of(folder, name) is None or not answers(url):
        said = (folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
        fail(f"{name} did not start; {folder / name}.log ends:", *said)


def _born(pid: int) -> str:
    """When the process began, in ticks since the machine did; empty for one that is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
