"""Who uses which entries at this moment, and the removal of those that nobody used for longest."""

from __future__ import annotations

import logging
import os
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.data.store.locks import has_locks, locked, take
from pipeline.data.store.settings import Places
from pipeline.data.store.writing import remove_entry

GB = 10**9  # bytes
LOG = logging.getLogger(__name__)


class Use:
    """The entries that this process uses, told to other processes until ``close``, the end or the death of this one.

    They stand in a file of the folder ``users`` that this process holds locked.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.path = places.users / f"{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._file: int | None = None
        self._finalizer: Callable[[], object] = lambda: None
        self._keys: set[str] = set()

    def add(self, keys: Iterable[str]) -> None:
        """Use these entries too. Raises OSError."""
        new = sorted(set(keys) - self._keys)
        if not new:
            return
        with users_locked(self.places):  # nobody evicts between our word and our look at what is there
            if self._file is None:
                _used(self.places)  # clears away the dead
                self._file = take(self.path, wait=True)
                assert self._file is not None
                self._finalizer = weakref.finalize(self, _release, self.path, self._file)
            data = "".join(f"{key}\n" for key in new).encode()
            while data:
                data = data[os.write(self._file, data) :]
        self._keys.update(new)

    def close(self) -> None:
        """Use nothing any more."""
        self._finalizer()
        self._file, self._keys = None, set()


def _release(path: Path, file: int) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
    os.close(file)


@contextmanager
def users_locked(places: Places) -> Iterator[None]:
    """While this is held nobody says what it uses and nobody evicts."""
    places.users.mkdir(parents=True, exist_ok=True)
    places.locks.mkdir(parents=True, exist_ok=True)
    with locked(places.locks / "users"):
        yield


def touch(entry: Path) -> None:
    """Remember that an entry was used now."""
    with suppress(OSError):  # a store that is only read
        os.utime(entry)


def evict(places: Places, max_gb: float, own: set[str]) -> int:
    """Remove the least recently used entries until the store is no larger than ``max_gb``; returns how many.

    Those in ``own`` and those of other running processes stay. Raises OSError.
    """
    with users_locked(places):
        if not has_locks(places.users):
            LOG.warning("%s: its file system has no locks, store.max_gb is not enforced", places.folder)
            return 0
        used = own | _used(places)
        entries = list(_entries(places))
        total = sum(size for _, size, _ in entries)
        removed = 0
        for _, size, key in sorted(entries):
            if total <= max_gb * GB:
                return removed
            if key not in used:
                remove_entry(places, key)
                total -= size
                removed += 1
    if total > max_gb * GB:
        LOG.warning("%s: the entries in use take %.1f GB, more than store.max_gb=%g", places.folder, total / GB, max_gb)
    return removed


def _used(places: Places) -> set[str]:
    """The keys that living processes use; the files of dead ones are removed."""
    found: set[str] = set()
    for path in list(places.users.iterdir()):
        with locked(path, wait=False) as dead:
            if not dead:
                found.update(path.read_text(encoding="ascii").split())
    return found


def _entries(places: Places) -> Iterator[tuple[float, int, str]]:
    """(time of last use, bytes, key) of every entry."""
    for shelf in os.scandir(places.folder):
        if len(shelf.name) != 2:
            continue
        for entry in os.scandir(shelf.path):
            with suppress(FileNotFoundError):
                size = sum(file.stat().st_size for file in os.scandir(entry.path))
                yield entry.stat().st_mtime, size, entry.name
