"""One writer at a time: a lock on a file, freed by the system when its process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import threading
import time
from pathlib import Path

from pipeline.errors import UserError

_held: set[str] = set()
_held_guard = threading.Lock()


class Lock:
    """Exclusive between processes (record lock, so that forked workers do not inherit it) and within this one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = os.path.realpath(path)
        self._file: int | None = None

    def acquire(self, wait_s: float) -> bool:
        """Take the lock, waiting up to ``wait_s`` seconds for another holder."""
        deadline = time.monotonic() + wait_s
        while not self._try():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        with _held_guard:
            if self._file is not None:
                os.close(self._file)
                self._file = None
                _held.discard(self._key)

    def holder(self) -> str:
        """The process that holds the lock, in words."""
        with _held_guard:
            if self._key in _held:
                # Opening and closing the file here would drop the record lock.
                return "this process"
        try:
            return self.path.read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return "another process"

    def _try(self) -> bool:
        with _held_guard:
            if self._key in _held:
                return False
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    os.close(file)
                    return False
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    os.close(file)
                    raise
                # This file system has no locks: go on without, as there is no better way.
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())
            self._file = file
            _held.add(self._key)
            return True


def lock_run_folder(folder: Path, wait_s: float) -> Lock:
    """The lock of a run's ``tracking`` folder; raises ``UserError`` when another process writes there."""
    lock = Lock(folder / "lock")
    if not lock.acquire(wait_s):
        raise UserError(
            f"{folder.parent} is in use by {lock.holder()}",
            "Wait until that run has ended, or stop it.",
            "Or choose another folder with output=...",
        )
    return lock
