"""The journal of a run folder: every tracked event, one JSON object a line, written before anything is sent."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

TRACKING_FOLDER = "tracking"
EVENTS_FILE = "events.jsonl"

Event = dict[str, Any]


@dataclass(frozen=True)
class RunOfJournal:
    """A run by the identity of the journal that records it, and its key there."""

    identity: str
    key: str

    @property
    def unique_key(self) -> str:
        """What the run carries in the store as a tag, to be found again by."""
        return f"{self.identity}/{self.key}"


class Journal:
    """Append-only file. A line torn by a crash is cut off on opening; lines are never changed.

    While the disk is full, events wait in memory and are written with the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._unwritten = b""
        self._warned = False
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._size = _whole_lines(self._file)
        if self._size < os.fstat(self._file).st_size:
            os.ftruncate(self._file, self._size)

    @property
    def size(self) -> int:
        """Bytes written, always whole lines."""
        return self._size

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event, in one call to the system and without waiting for the disk."""
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._unwritten += line
            try:
                written = os.write(self._file, self._unwritten)
                if written < len(self._unwritten):
                    raise OSError(f"only {written} of {len(self._unwritten)} bytes written")
            except OSError as error:
                os.ftruncate(self._file, self._size)
                if not self._warned:
                    log.warning("%s cannot be written (%s); events wait in memory", self.path, error)
                    self._warned = True
                return
            self._size += written
            self._unwritten = b""
            self._warned = False

    def read(self, offset: int, most: int = 2000) -> list[tuple[Event, int]]:
        """Up to ``most`` events from byte ``offset`` on, each with the offset at its end."""
        events: list[tuple[Event, int]] = []
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n") or len(events) == most:
                    break
                offset += len(line)
                events.append((self._parse(line), offset))
        return events

    def __iter__(self) -> Iterator[Event]:
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield self._parse(line)

    def to_disk(self) -> None:
        """Wait until everything written has reached the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; the journal cannot be used afterwards."""
        with self._lock:
            self.to_disk()
            os.close(self._file)

    def _parse(self, line: bytes) -> Event:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            log.warning("%s: a damaged line is skipped", self.path)
            return {"event": "damaged"}
        return event


def first_event(path: Path) -> Event | None:
    """What a journal begins with, None without a journal or a whole line in it."""
    try:
        with path.open("rb") as file:
            line = file.readline()
            event = json.loads(line) if line.endswith(b"\n") else None
    except (OSError, ValueError):
        return None
    return event if isinstance(event, dict) else None


def _whole_lines(file: int) -> int:
    """Length of the file up to its last newline."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65536)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
