"""What a run recorded when it began, for going on with it and for repeating it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.json_file import read_json, write_json
from pipeline.training.fold import PACE_FILE
from pipeline.training.manifest import MANIFEST_FILE, Manifest

log = logging.getLogger(__name__)

PROVENANCE_FILE = "provenance.json"
KEPT_PER_RESUMPTION = ("time", "command", "git", "host", "pipeline")


@dataclass(frozen=True)
class Before:
    """The folder of a run that goes on; ``found`` is its provenance, None where it ended before that was written."""

    folder: Path
    found: Mapping[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> Before:
        """Raises UserError where provenance.json is there and cannot be read."""
        path = folder / PROVENANCE_FILE
        return cls(folder, _read_provenance(path) if path.exists() else None)

    @property
    def engine(self) -> Mapping[str, Any] | None:
        """The engine that was chosen."""
        engine: Mapping[str, Any] | None = (self.found or {}).get("engine", {}).get("engine")
        return engine

    def require_same(self, manifest: Manifest) -> None:
        """Raise UserError where files or folds are others than when the run began."""
        if self.found is not None or (self.folder / MANIFEST_FILE).exists():
            Manifest.read(self.folder).require_same(manifest, self.folder)

    def warn(self, found: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Say what differs between the provenance ``found`` and this process's so that results may."""
        for line in differences(found, now):
            log.warning("not as the run began, another %s: the same bits cannot be expected", line)

    def add(self, found: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Add this process to the provenance ``found``, and say what differs so that results may."""
        self.warn(found, now)
        resumed = {name: now[name] for name in KEPT_PER_RESUMPTION if name in now}
        write_json(self.folder / PROVENANCE_FILE, {**found, "resumed": [*found.get("resumed", []), resumed]})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two provenances and may change results, one line each."""
    lines = []
    for name in ("pipeline", "python"):
        if before.get(name) != now.get(name):
            lines.append(f"{name}: {before.get(name)} then, {now.get(name)} now")
    for name in sorted({*before.get("packages", {}), *now.get("packages", {})}):
        then, here = before.get("packages", {}).get(name), now.get("packages", {}).get(name)
        if then != here:
            lines.append(f"{name}: {then or 'absent'} then, {here or 'absent'} now")
    cpu, cpu_now = before.get("cpu") or {}, now.get("cpu") or {}
    for name, said in (("model", "processor"), ("capability", "instruction set")):
        if cpu.get(name) != cpu_now.get(name):
            lines.append(f"{said}: {cpu.get(name)} then, {cpu_now.get(name)} now")
    if before.get("threads") != now.get("threads"):
        lines.append(f"threads: {before.get('threads')} then, {now.get('threads')} now")
    if before.get("gpus") != now.get("gpus"):
        lines.append(f"GPUs: {before.get('gpus') or 'none'} then, {now.get('gpus') or 'none'} now")
    git, git_now = before.get("git") or {}, now.get("git") or {}
    for name, said in (("commit", "git commit"), ("changes_sha256", "local changes (sha256)")):
        if git.get(name) != git_now.get(name):
            lines.append(f"{said}: {git.get(name) or 'none'} then, {git_now.get(name) or 'none'} now")
    return lines


def _read_provenance(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a provenance")
    return found


def provenance_of(folder: Path) -> Mapping[str, Any]:
    """The provenance of the run in ``folder``; raises UserError."""
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        raise UserError(f"{path}: missing, this is not the folder of a run")
    return _read_provenance(path)


def paces_of(folder: Path) -> dict[int, list[float]]:
    """Progress of every step of each trained fold of a run; raises UserError for a file that holds something else."""
    found = {}
    for path in folder.glob(f"fold_*/{PACE_FILE}"):
        try:
            pace = np.load(path, mmap_mode="r", allow_pickle=False)  # a header cannot ask for more than the file has
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable: {error}") from error
        if pace.ndim != 1 or pace.dtype != np.float64 or not np.isfinite(pace).all():
            raise UserError(f"{path}: not the progress of a fold")
        found[int(path.parent.name.removeprefix("fold_"))] = pace.tolist()
    return found
