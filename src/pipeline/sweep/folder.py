"""The folder of a sweep: what it was begun with, its trials, and who works on which of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.recorded import changed_keys, read_plain_yaml
from pipeline.config.yaml_files import shown
from pipeline.errors import UserError
from pipeline.json_file import read_json, write_json
from pipeline.tracking.lock import Lock
from pipeline.tracking.secrets import mask

SWEEP_FILE = "sweep.json"
CONFIG_FILE = "sweep.yaml"  # the configuration as composed
TRIALS_FOLDER = "trials"
JOBS_FOLDER = "jobs"  # logs and locks
TRIAL_FILE = "trial.json"
LONGEST_WAIT = 600.0  # s for another process of the sweep
# Of the section sweep: what may differ when a sweep goes on.
FREE = ("sweep.trials", "sweep.failures", "sweep.at_once", "sweep.resamples")


@dataclass(frozen=True)
class Begun:
    """What a sweep was begun with. ``overrides``: as typed; ``folders``: of configurations, the main one first."""

    study: str
    storage: str
    overrides: tuple[str, ...]
    folders: tuple[str, ...]
    working_folder: str

    @classmethod
    def read(cls, folder: Path) -> Begun:
        """Raises UserError where the folder is that of no sweep."""
        path = folder / SWEEP_FILE
        try:
            content = read_json(path)
            return cls(
                content["study"],
                content["storage"],
                tuple(content["overrides"]),
                tuple(content["folders"]),
                content["working_folder"],
            )
        except FileNotFoundError:
            raise UserError(f"{folder}: not the folder of a sweep, it has no {SWEEP_FILE}") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: not readable: {error}") from error


class SweepFolder:
    """Paths in the folder of a sweep, and its locks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def trial(self, number: int) -> Path:
        """The folder of a trial, that of a run like any other."""
        return self.path / TRIALS_FOLDER / f"{number:04d}"

    def log(self, number: int) -> Path:
        """What the process of a trial says."""
        return self.path / JOBS_FOLDER / f"{trial_name(number)}.log"

    def claim(self, number: int) -> Lock:
        """The lock of whoever starts the processes of a trial, free when that process is gone."""
        return Lock(self.path / JOBS_FOLDER / f"{trial_name(number)}.lock")

    def begin(
        self, tree: Mapping[str, Any], overrides: Sequence[str], folders: Sequence[Path], storage: str, study: str
    ) -> Begun:
        """Record what the sweep is, or see that it is the one recorded here. Raises UserError."""
        (self.path / JOBS_FOLDER).mkdir(parents=True, exist_ok=True)
        with self.one_at_a_time("begin"):
            if (self.path / SWEEP_FILE).exists():
                begun = Begun.read(self.path)
                self._require_same(tree, storage, begun)
                return begun
            foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name != JOBS_FOLDER)
            if foreign:
                raise UserError(
                    f"{self.path}: the output folder is not empty", "choose another with output=FOLDER, or remove it"
                )
            unique = study or f"{self.path.name}-{uuid.uuid4().hex}"
            begun = Begun(unique, storage, tuple(overrides), tuple(map(str, folders)), str(Path.cwd()))
            text = yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)
            (self.path / CONFIG_FILE).write_text(text, encoding="utf-8")
            write_json(self.path / SWEEP_FILE, asdict(begun))
            return begun

    def _require_same(self, tree: Mapping[str, Any], storage: str, begun: Begun) -> None:
        recorded = read_plain_yaml(self.path / CONFIG_FILE)
        changes = changed_keys(recorded, dict(tree))
        changes = {name: values for name, values in changes.items() if name not in FREE}
        run_folds = recorded["folds"]["run"], tree["folds"]["run"]
        if run_folds[0] != run_folds[1]:
            changes["folds.run"] = run_folds
        if storage != begun.storage:
            changes["sweep.storage"] = (begun.storage, storage)
        if changes:
            listed = [f"{name}: {before!r} then, {now!r} now" for name, (before, now) in list(changes.items())[:20]]
            raise UserError(
                f"{shown(self.path)}: {len(changes)} setting(s) differ from those of the sweep in it",
                *listed,
                f"sweep resume={shown(self.path)} goes on with the settings of the sweep",
                "or begin another: output=FOLDER",
            )

    @contextmanager
    def one_at_a_time(self, what: str) -> Iterator[None]:
        """Of the processes of a sweep, only one is inside. Raises UserError after ten minutes."""
        lock = Lock(self.path / JOBS_FOLDER / f".{what}.lock")
        if not lock.acquire(LONGEST_WAIT):
            raise UserError(f"{lock.path} is held by {lock.holder()} for more than {LONGEST_WAIT / 60:.0f} minutes")
        try:
            yield
        finally:
            lock.release()


def trial_name(number: int) -> str:
    """What a trial's job is called."""
    return f"trial_{number:04d}"


def is_sweep(folder: Path) -> bool:
    """Whether the folder is that of a sweep."""
    return (folder / SWEEP_FILE).is_file()


def require_no_password(overrides: Sequence[str]) -> None:
    """Raise UserError where an override holds a password: overrides are recorded and stand in command lines."""
    for override in overrides:
        if mask(override) != override:
            raise UserError(
                f"{mask(override)}: holds a password, which would be written down",
                "give it by the environment: ${oc.env:NAME} in place of the address",
            )
