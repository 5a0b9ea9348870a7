"""Measurements of cases remembered from one run to the next, by the content of their files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from pipeline.data.fingerprint.measure import CaseMeasure

MOST_UNUSED = 4  # lines per line in use before the file is written anew


class Memory:
    """A file of lines, one per case: its key and its measurement. Each new one is added at once, in one write, so
    that a killed run goes on where it was and several processes may share the file; a torn line is passed over.

    ``folder``: where the file lies; None: nothing is remembered. ``name`` tells data sets apart.
    """

    def __init__(self, folder: Path | None, name: str, origin: str) -> None:
        self.path = None
        if folder is not None:
            self.path = folder / f"{name}_{hashlib.sha256(origin.encode()).hexdigest()[:16]}.jsonl"
        self.lines: dict[str, bytes] = {}
        self.used: set[str] = set()
        self.file: int | None = None

    def __enter__(self) -> Memory:
        if self.path is None:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            with self.path.open("rb") as file:
                for line in file:
                    key, _, measured = line.partition(b"\t")
                    if measured.endswith(b"\n"):
                        self.lines[key.decode("ascii", "replace")] = measured
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is None or self.path is None:
            return
        os.close(self.file)
        unused = [key for key in self.lines if key not in self.used]
        if kind is None and len(unused) > MOST_UNUSED * len(self.used) + 100:
            partial = self.path.with_suffix(f".{os.getpid()}")
            with partial.open("wb") as file:
                file.writelines(_line(key, self.lines[key]) for key in self.lines if key in self.used)
            partial.replace(self.path)

    def recall(self, key: str) -> CaseMeasure | None:
        """The measurement of this key, None where there is none that can be read."""
        try:
            measured = CaseMeasure.model_validate_json(self.lines[key])
        except (KeyError, ValidationError, ValueError):
            return None
        self.used.add(key)
        return measured

    def keep(self, key: str, measured: CaseMeasure) -> None:
        """Remember a measurement."""
        if self.file is None:
            return
        text = measured.model_dump_json().encode() + b"\n"
        self.used.add(key)
        self.lines[key] = text
        os.write(self.file, _line(key, text))


def _line(key: str, measured: bytes) -> bytes:
    return key.encode("ascii") + b"\t" + measured
