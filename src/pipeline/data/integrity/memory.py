"""Readings remembered from one check to the next, as long as path, size and time of change stay the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pipeline.data.integrity.reading import READING_VERSION, Job, Reading

NAMES = tuple(field.name for field in fields(Reading))


class Memory:
    """A file of JSON lines, one per job, to which each new reading is added at once: a check that is stopped half
    way goes on where it was. Lines that cannot be read are passed over.

    ``folder``: where the file lies; None: nothing is remembered.
    """

    def __init__(self, folder: Path | None, root: Path) -> None:
        self.path = None
        self.known: dict[str, list[Any]] = {}
        self.lines = 0
        self.file: IO[str] | None = None
        if folder is not None:
            name = hashlib.sha256(str(root).encode()).hexdigest()[:16]
            self.path = folder / "integrity" / f"{root.name}_{name}.jsonl"

    def __enter__(self) -> Memory:
        if self.path is not None:
            if self.path.is_file():
                with self.path.open(encoding="utf-8") as file:
                    for line in file:
                        self._load(line)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.lines > 2 * len(self.known) + 100:
                self._shorten(self.path)
            self.file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            self.file.close()

    def recall(self, job: Job) -> list[Reading] | None:
        """The readings of an unchanged file, or None."""
        entry = self.known.get(_name(job))
        if entry is None or entry[0] != _state(job.path):
            return None
        try:
            return [_restore(values) for values in entry[1]]
        except (TypeError, ValueError, AttributeError):
            return None

    def keep(self, job: Job, readings: list[Reading]) -> None:
        """Remember the readings of a file that could be read; faults are looked at anew each time."""
        if self.file is None or any(reading.fault for reading in readings):
            return
        entry = [_state(job.path), [astuple(reading) for reading in readings]]
        self.file.write(json.dumps([READING_VERSION, _name(job), *entry], separators=(",", ":")) + "\n")
        self.file.flush()

    def _load(self, line: str) -> None:
        self.lines += 1
        try:
            version, name, state, readings = json.loads(line)
        except (ValueError, TypeError):
            return
        if version == READING_VERSION and isinstance(name, str):
            self.known[name] = [state, readings]

    def _shorten(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            for name, entry in self.known.items():
                file.write(json.dumps([READING_VERSION, name, *entry], separators=(",", ":")) + "\n")
        partial.replace(path)


def _name(job: Job) -> str:
    return f"{job.role}\0{job.key or ''}\0{job.path}"


def _state(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _restore(values: list[Any]) -> Reading:
    said = dict(zip(NAMES, values, strict=True))
    for name in ("remedies", "shape", "affine", "doubts"):
        said[name] = tuple(said[name])
    if said["values"] is not None:
        said["values"] = {int(value): count for value, count in said["values"].items()}
    return Reading(**said)
