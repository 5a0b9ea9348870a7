"""Locks between processes (and threads) that the system frees when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of file systems that have none


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file ``path``, which is gone afterwards; False (at once) where another holds it and not ``wait``.

    On a file system without locks everyone gets it: work may then be done twice, its results still appear whole.
    """
    file = take(path, wait=wait)
    if file is None:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)  # before the lock is freed: nobody can have locked this very file since
        os.close(file)


def take(path: Path, *, wait: bool) -> int | None:
    """An open file that holds the lock ``path`` until it is closed; None where another holds it and not ``wait``."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(file)
                raise
            return file
        except BaseException:
            os.close(file)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # its last holder removed it meanwhile


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder knows locks."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    finally:
        os.close(file)
    return True
