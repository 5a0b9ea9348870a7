"""Checkpoint files that are either whole or absent, also on a disk that is full."""

from __future__ import annotations

import errno
import logging
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from pipeline.data.store.entry import sync_folder
from pipeline.errors import UserError
from pipeline.prediction.weights import DIGEST_SUFFIX, file_sha256, read_checkpoint

log = logging.getLogger(__name__)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ROOM_AGAIN_S = 5.0  # between looks whether a full disk has room again


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes in the target folder, syncs to disk, renames: a full disk or a crash leaves the previous file as it was.

    The sha256 of the file stands beside it (``<name>.sha256``). ``on_full``: ``stop`` raises UserError when the disk is
    full, ``wait`` tries again until there is room. Reads tensors and plain types only.
    """

    def __init__(self, on_full: Literal["stop", "wait"] = "stop") -> None:
        super().__init__()
        self.on_full = on_full

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with_room(lambda: _write(checkpoint, target), f"{target}: the checkpoint cannot be saved", self.on_full)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def with_room(write: Callable[[], None], cause: str, on_full: Literal["stop", "wait"]) -> None:
    """Call ``write``; where the disk is full, wait for room or raise UserError with ``cause``."""
    told = False
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if on_full == "stop":
                raise UserError(
                    f"{cause}: the disk is full ({os.strerror(error.errno)}). What was saved before is whole",
                    "make room, then go on where it stopped: python -m pipeline train resume=RUN_FOLDER",
                    "checkpoint.on_full=wait waits for room instead",
                ) from error
            if not told:
                log.warning("%s: the disk is full. Waiting for room (checkpoint.on_full=wait)", cause)
                told = True
            time.sleep(ROOM_AGAIN_S)


def _write(checkpoint: dict[str, Any], target: Path) -> None:
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    digest = target.with_name(target.name + DIGEST_SUFFIX)
    digest_partial = target.with_name(f".{digest.name}.{uuid.uuid4().hex}")
    try:
        try:
            with partial.open("wb") as handle:
                torch.save(checkpoint, handle)
                handle.flush()
                os.fsync(handle.fileno())
        except RuntimeError as error:  # torch's writer hides what the disk said
            raise _hidden(error, partial) from error
        digest_partial.write_text(f"{file_sha256(partial)}  {target.name}\n", encoding="ascii")
        if not target.exists():  # so that no new file ever stands without its digest
            digest_partial.replace(digest)
            partial.replace(target)
        else:
            partial.replace(target)
            digest_partial.replace(digest)
    finally:
        partial.unlink(missing_ok=True)
        digest_partial.unlink(missing_ok=True)
    sync_folder(target.parent)


def remove_partial(folder: Path) -> None:
    """Remove what a process that was killed while it saved has left in ``folder``."""
    for path in folder.glob(".*.ckpt*"):
        path.unlink()


def _hidden(error: RuntimeError, partial: Path) -> Exception:
    """The OSError behind an error of torch's archive writer, or the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    try:
        room = os.statvfs(partial.parent)
    except OSError:
        return error
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if room.f_bavail == 0 else error
