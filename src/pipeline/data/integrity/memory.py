"""Readings remembered from one check to the next: by path while a file is unchanged, else by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pipeline.data.image_io import ITK, ImageError, files_of
from pipeline.data.image_io.detached import LONGEST
from pipeline.data.image_io.image import require_regular
from pipeline.data.integrity.reading import READING_VERSION, Job, Reading
from pipeline.errors import UserError

NAMES = tuple(field.name for field in fields(Reading))
TUPLES = {"remedies", "shape", "affine", "doubts", "blank", "extent", "flat", "twins", "fit"}
DEFAULTS = {field.name: field.default for field in fields(Reading)}


class Memory:
    """A file of JSON lines, one per job, to which each new reading is added at once: a check that is stopped half
    way goes on where it was. Lines that cannot be read are passed over.

    A file whose path, size and times of change are as before is not opened. One that was touched, renamed or copied
    inside the data set is hashed, and recognised by its content, before it is decoded.
    ``folder``: where the memory lies; None: nothing is remembered.
    """

    def __init__(self, folder: Path | None, root: Path) -> None:
        self.path = None
        self.lines: dict[str, str] = {}  # by name of the job
        self.names: dict[tuple[str, str, str], str] = {}  # by role, suffix and sha256
        self.sizes: set[int] = set()
        self.total = 0
        self.file: IO[str] | None = None
        if folder is not None:
            name = hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:16]
            self.path = folder / "integrity" / f"{root.name}_{name}.jsonl"

    def __enter__(self) -> Memory:
        try:
            self._open()
        except OSError as error:
            raise UserError(
                f"{self.path}: the cache cannot be written ({error.strerror or error})", "name a folder: cache=FOLDER"
            ) from None
        return self

    def _open(self) -> None:
        if self.path is not None:
            line = "\n"
            if self.path.is_file():
                with self.path.open(encoding="utf-8", errors="replace") as file:
                    for line in file:
                        self._load(line)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.total > 2 * len(self.lines) + 100:
                self._shorten(self.path)
                line = "\n"
            self.file = self.path.open("a", encoding="utf-8")
            if not line.endswith("\n"):  # the line that was being written when a check was stopped
                self.file.write("\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            self.file.close()

    def recall(self, job: Job) -> list[Reading] | None:
        """The readings of a file that is unchanged, or known by its content; None where it must be read."""
        state = _state(job.path)
        if state is None or not self.lines:
            return None
        line = self.lines.get(_name(job))
        if line is not None and (head := _head(line)) is not None and head[1] == state:
            return _restore(line)
        if state[0] not in self.sizes:
            return None
        try:  # a pipe that took the place of a file must not be opened
            require_regular(job.path)
            with job.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except (ImageError, OSError):
            return None
        known = self.names.get((job.role, _suffixes(str(job.path)), sha256))
        readings = _restore(self.lines[known]) if known is not None else None
        if readings is not None and _state(job.path) == state:
            self.keep(job, readings)
            return readings
        return None

    def keep(self, job: Job, readings: Sequence[Reading]) -> None:
        """Remember the readings of a file that could be read; faults are looked at anew each time."""
        if self.file is None or any(reading.fault for reading in readings):
            return
        head = [READING_VERSION, _state(job.path), readings[0].sha256, _name(job)]
        said = [_plain(reading) for reading in readings]
        text = "\t".join(json.dumps(part, separators=(",", ":")) for part in (head, said))  # no bare tab in JSON
        self.file.write(text + "\n")
        self.file.flush()

    def _load(self, line: str) -> None:
        self.total += 1
        head = _head(line)
        if head is None or not line.endswith("\n"):
            return
        _, (size, *_), sha256, name = head
        self.lines[name] = line
        self.sizes.add(size)
        role, _, path = name.split("\0", 2)
        self.names[role, _suffixes(path), sha256] = name

    def _shorten(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(self.lines.values())
        partial.replace(path)


def _name(job: Job) -> str:
    return f"{job.role}\0{job.key or ''}\0{job.path}"


def _suffixes(path: str) -> str:
    """What decides how the bytes are read."""
    return "".join(Path(path).suffixes[-2:]).lower()


def _state(path: Path) -> list[int] | None:
    """Size and times of change of a file and of what belongs to it; None where it is not there."""
    try:
        states = [path.stat()]
        if states[0].st_size <= LONGEST and path.name.lower().endswith(ITK):  # a header without its voxels
            states += [part.stat() for part in files_of(path)[1:]]
    except (ImageError, OSError):
        return None
    return [number for state in states for number in (state.st_size, state.st_mtime_ns, state.st_ctime_ns)]


def _head(line: str) -> list[Any] | None:
    """What a line is about: version, state of the file, sha256, name of the job; readings are parsed when asked for."""
    try:
        version, state, sha256, name = json.loads(line[: line.index("\t")])
    except (ValueError, TypeError):
        return None
    sound = version == READING_VERSION and isinstance(state, list) and len(state) in (3, 6) and isinstance(name, str)
    return [version, state, str(sha256), name] if sound and name.count("\0") >= 2 else None


def _plain(reading: Reading) -> dict[str, Any]:
    return {name: value for name in NAMES if (value := getattr(reading, name)) != DEFAULTS[name]}


def _restore(line: str) -> list[Reading] | None:
    found = []
    try:
        for said in json.loads(line[line.index("\t") :]):
            for name in TUPLES & said.keys():
                said[name] = tuple(said[name])
            if "values" in said:
                said["values"] = {int(value): count for value, count in said["values"].items()}
            if said.get("classes") is not None:
                said["classes"] = {int(value): tuple(found) for value, found in said["classes"].items()}
            found.append(Reading(**said))
    except (TypeError, ValueError, AttributeError):
        return None
    return found or None
