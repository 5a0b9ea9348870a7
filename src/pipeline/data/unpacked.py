"""A data set that is given as one archive: unpacked once into the cache, under the hash of its content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import uuid
from pathlib import Path

from pipeline.data.archive import LIMITS, Limits, extract, stem_of_archive
from pipeline.errors import UserError
from pipeline.paths import cache_folder


def unpacked(archive: Path, cache: Path | None = None, limits: Limits = LIMITS) -> Path:
    """The folder with the content of ``archive``, unpacked unless an archive of this sha256 was before.

    Of several processes that ask at once one unpacks and the others wait; what a killed one left is removed. The hash
    of an archive of unchanged size and time is remembered. Raises UserError.
    """
    place = (cache if cache is not None else cache_folder(None)) / "archives"
    digest = sha256_of(archive, place)
    target = place / digest[:32] / (stem_of_archive(archive) or "data")
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                for left in target.parent.glob(".*.partial"):
                    shutil.rmtree(left, ignore_errors=True)
                extract(archive, target, limits)
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {place} ({error.strerror or error})") from None
    return target


def sha256_of(archive: Path, place: Path) -> str:
    """The sha256 of a file, remembered in ``place`` under its path, size and time of change. Raises UserError."""
    note = place / f"{hashlib.sha256(str(archive.resolve()).encode()).hexdigest()[:32]}.json"
    try:
        status = archive.stat()
        state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["state"] == state:
                return str(known["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        place.mkdir(parents=True, exist_ok=True)
        partial = note.with_name(f".{note.name}.{uuid.uuid4().hex}")
        partial.write_text(json.dumps({"archive": str(archive), "state": state, "sha256": digest}), encoding="utf-8")
        partial.replace(note)
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror or error})") from None
    return digest
