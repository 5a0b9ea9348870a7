"""The sqlite file of a local MLflow store: made once, whole, by one process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

from pipeline.tracking.lock import Lock


def alone(file: Path | None) -> AbstractContextManager[object]:
    """While a sqlite store is created, no other process of ours creates it too."""
    if file is None:
        return nullcontext()
    return _Creating(file)


def create(file: Path, client: Any) -> None:
    """Make the tables under another name: a process killed while MLflow makes them would leave a store of no use."""
    new = file.with_name(f".{file.name}.new")
    for left in file.parent.glob(f"{new.name}*"):
        left.unlink()
    uri = f"sqlite:///{new}"
    client(tracking_uri=uri, registry_uri=uri).get_experiment_by_name("Default")
    new.replace(file)


def check_sqlite(file: Path) -> None:
    """Raise at once what MLflow would hide behind an hour of growing pauses: no permission, not a database."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        if not os.access(file.parent, os.W_OK):
            raise PermissionError(f"{file.parent}: no permission to write")
        return
    with closing(sqlite3.connect(file, timeout=20)) as connection:
        connection.execute("PRAGMA schema_version")


class _Creating:
    def __init__(self, file: Path) -> None:
        self._lock = Lock(file.with_name(f".{file.name}.lock"))

    def __enter__(self) -> None:
        if not self._lock.acquire(wait_s=120):
            raise TimeoutError(f"{self._lock.path} is held by {self._lock.holder()}")

    def __exit__(self, *exception: object) -> None:
        self._lock.release()
