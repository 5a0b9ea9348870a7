"""An entry made: the case preprocessed once, whoever asks first, and put in its place whole."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.data.case import Case
from pipeline.data.preprocessing import Prepared, Preprocessing
from pipeline.data.store.arrays import OpenArrays
from pipeline.data.store.entry import BrokenEntryError, read_entry, sync_folder, write_entry
from pipeline.data.store.locks import locked
from pipeline.data.store.settings import Places, StoreSettings
from pipeline.errors import UserError, UserErrors

FULL = {errno.ENOSPC, errno.EDQUOT}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}

Outcome = Literal["written", "there", "busy"]


class StoreError(UserError):
    """The store itself cannot be written: no use in going on with other cases."""


@dataclass(frozen=True)
class Writer:
    """Writes entries; can be sent to other processes."""

    places: Places
    preprocessing: Preprocessing
    settings: StoreSettings

    def __call__(self, key: str, case: Case, *, wait: bool) -> Outcome:
        """Make the entry unless it is there; ``busy`` where another makes it at this moment and not ``wait``.

        Raises UserError that names the case's file, or StoreError.
        """
        entry = self.places.entry(key)
        with writing_to(self.places.folder), self._locked(key, wait) as mine:
            if not mine:
                return "busy"
            if entry.is_dir():
                return "there"
            self._write(key, case)
            return "written"

    def renew(self, key: str, case: Case) -> None:
        """Make an entry that was found broken or absent, unless another has done so meanwhile."""
        entry = self.places.entry(key)
        with writing_to(self.places.folder), self._locked(key, True):
            try:
                read_entry(entry, OpenArrays())
            except BrokenEntryError:
                if entry.exists():
                    remove_entry(self.places, key)
                self._write(key, case)

    @contextmanager
    def _locked(self, key: str, wait: bool) -> Iterator[bool]:
        self.places.locks.mkdir(parents=True, exist_ok=True)
        with locked(self.places.lock(key), wait=wait) as mine:
            yield mine

    def _write(self, key: str, case: Case) -> None:
        prepared = prepare_case(self.preprocessing, case)
        entry, partial = self.places.entry(key), self.places.partial / f"{key}.{uuid.uuid4().hex[:8]}"
        try:
            try:
                write_entry(partial, prepared, self.settings)
            except ValueError as error:
                raise UserError(f"{_file(case)}: {error}", "choose store.dtype=float32 or auto") from error
            if not entry.parent.is_dir():
                entry.parent.mkdir(exist_ok=True)
                sync_folder(self.places.folder)
            try:
                partial.rename(entry)
            except OSError:
                if not entry.is_dir():  # otherwise another was first, on a file system without locks
                    raise
            sync_folder(entry.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def prepare_case(preprocessing: Preprocessing, case: Case) -> Prepared:
    """Preprocess a case; whatever goes wrong is a UserError that names its file."""
    try:
        return preprocessing(case)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(
            f"{_file(case)}: not enough memory to preprocess it", "preprocess fewer cases at once: store.workers=1"
        ) from error
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{_file(case)}: cannot be preprocessed: {said}", "look at the file: python -m pipeline check"
        ) from error


def _file(case: Case) -> Path:
    return next(iter(case.images.values())).path


def remove_entry(places: Places, key: str) -> None:
    """Take an entry out of its place at once, then remove its files. Raises OSError."""
    aside = places.partial / f"{key}.{uuid.uuid4().hex[:8]}"
    places.partial.mkdir(parents=True, exist_ok=True)
    places.entry(key).rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def clear_leftovers(places: Places) -> int:
    """Remove what processes that died left behind; returns how many unfinished entries. Raises OSError."""
    removed = 0
    for left in _names(places.partial):
        with locked(places.lock(left.partition(".")[0]), wait=False) as mine:
            if mine:
                shutil.rmtree(places.partial / left, ignore_errors=True)
                removed += 1
    for name in _names(places.locks):
        with locked(places.locks / name, wait=False):
            pass  # a lock that nobody holds is gone after this
    return removed


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Failures of the file system as errors that say what to do."""
    try:
        yield
    except OSError as error:
        raise store_error(folder, error) from error


def store_error(folder: Path, error: OSError) -> StoreError:
    """What to tell the user about a file system that refuses."""
    where = Path(str(error.filename)).parent if error.filename else folder
    if error.errno in FULL:
        return StoreError(
            f"{folder}: the disk is full; what was preprocessed before is kept",
            "free some space, or move the cache: cache=FOLDER",
            "store.format=blosc2 compresses, store.max_gb removes what was not used for long",
        )
    if error.errno in CLOSED:
        return StoreError(
            f"{where}: preprocessed cases cannot be written here ({error.strerror})", "choose a folder: cache=FOLDER"
        )
    return StoreError(f"{where}: {error.strerror or error}", "choose another folder: cache=FOLDER")


def flattened(error: UserError) -> list[UserError]:
    """One mistake as itself, several one by one."""
    return [one for inner in error.errors for one in flattened(inner)] if isinstance(error, UserErrors) else [error]
