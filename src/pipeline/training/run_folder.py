"""The folder of one run: new, or that of an interrupted run which goes on; in use by one process at a time."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.config.recorded import EXPERIMENT_FILE, changed_keys, partial_of, read_plain_yaml
from pipeline.config.yaml_files import shown
from pipeline.errors import UserError
from pipeline.json_file import read_json
from pipeline.ranks import RUN_FOLDER, rank
from pipeline.tracking.lock import Lock

LOCK_FILE = ".lock"
SUMMARY_FILE = "summary.json"
# What a process leaves that was killed before it had recorded its configuration: as good as an empty folder.
LEFT_BY_KILLED = frozenset({LOCK_FILE, partial_of(Path(EXPERIMENT_FILE)).name})
MOST_NAMES = 100  # of folders that runs started in one second would share

_kept: list[Lock] = []  # held until this process ends


def new_folder(given: Path | None, name: str) -> Path:
    """``given`` or outputs/<name>/<date_time>: made, empty and locked for this process.

    Processes that rank zero started get its folder. Raises UserError where the folder holds anything.
    """
    if rank() > 0:
        return _shared(given)
    if given is None:
        return _own(free_folder(Path("outputs", name).absolute()))
    folder = given
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: the output folder is a file", "choose another with output=FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    _own(folder)
    if any(entry.name not in LEFT_BY_KILLED for entry in folder.iterdir()):
        going_on = (folder / EXPERIMENT_FILE).is_file() and not finished(folder)
        raise UserError(
            f"{folder}: the output folder is not empty",
            "choose another with output=FOLDER",
            f"or go on with the run in it: resume={shown(folder)}" if going_on else "or remove it",
        )
    return folder


def interrupted_folder(wanted: str, tree: Mapping[str, Any], given: Path | None, name: str) -> Path | None:
    """The folder of the run to go on with, locked for this process.

    ``wanted`` names it, or is ``auto``: then ``given`` if it holds a run, else the newest unfinished run of the same
    configuration, None without one. Raises UserError for a folder that is no run's.
    """
    named = None if wanted == "auto" else named_folder(wanted)
    if rank() > 0:
        return _shared(named or given)
    if named is not None:
        folder = named
        if not (folder / EXPERIMENT_FILE).is_file():
            raise UserError(f"resume={wanted}: {folder} is not the folder of a run, it has no {EXPERIMENT_FILE}")
        return _own(folder)
    if given is not None:
        return _own(given) if (given / EXPERIMENT_FILE).is_file() else None
    base = Path("outputs", name).absolute()
    for folder in sorted((path.parent for path in base.glob(f"*/{EXPERIMENT_FILE}")), reverse=True):
        if finished(folder) or changed_keys(read_plain_yaml(folder / EXPERIMENT_FILE), tree):
            continue
        lock = Lock(folder / LOCK_FILE)
        if lock.acquire(0):
            _keep(folder, lock)
            return folder
    return None


def own_fold(output: Path, name: str) -> None:
    """Lock the folder of a fold for this process; the run's own belongs to the process that launched it."""
    if rank() == 0:
        (output / name).mkdir(exist_ok=True)
        _own(output / name)
        os.environ[RUN_FOLDER] = str(output)


def is_owned(folder: Path) -> bool:
    """Whether a process works in the folder."""
    lock = Lock(folder / LOCK_FILE)
    if not lock.acquire(0):
        return True
    lock.release()
    return False


def named_folder(name: str) -> Path:
    """A folder as a user writes it."""
    return Path(name).expanduser().absolute()


def finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has its summary."""
    try:
        return bool(read_json(folder / SUMMARY_FILE))
    except (OSError, ValueError):
        return False


def _shared(given: Path | None) -> Path:
    """The folder of rank zero, of which this process is told by its environment or by name."""
    shared = os.environ.get(RUN_FOLDER)
    if shared is not None:
        return named_folder(shared)
    if given is None:
        raise UserError("several processes need one folder", "name it: output=FOLDER")
    return given


def free_folder(base: Path) -> Path:
    """A new folder in ``base``, named by the time."""
    moment = datetime.datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, MOST_NAMES):
        folder = base / (moment if number == 1 else f"{moment}_{number}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:  # another run began in the same second
            continue
        return folder
    raise UserError(f"{base / moment}: {MOST_NAMES} runs began in this second", "name the folder: output=FOLDER")


def _own(folder: Path) -> Path:
    lock = Lock(folder / LOCK_FILE)
    if not lock.acquire(0):
        raise UserError(
            f"{folder} is in use by {lock.holder()}",
            "wait until that run has ended, or stop it",
            "or choose another folder with output=FOLDER",
        )
    _keep(folder, lock)
    return folder


def _keep(folder: Path, lock: Lock) -> None:
    _kept.append(lock)
    os.environ[RUN_FOLDER] = str(folder)


def release_folders() -> None:
    """Give back the folders of this process; one into which nothing was written goes."""
    while _kept:
        lock = _kept.pop()
        with suppress(OSError):
            if [entry.name for entry in lock.path.parent.iterdir()] == [LOCK_FILE]:
                lock.path.unlink()
                lock.path.parent.rmdir()
        lock.release()
    os.environ.pop(RUN_FOLDER, None)
