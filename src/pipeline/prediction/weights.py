"""The weights in a checkpoint, read without running anything that is in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, tensors and plain types only; a missing or damaged file raises :class:`UserError`."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint", "was the fold trained? see fold_*/checkpoints in the run folder")
    recorded = path.with_name(path.name + ".sha256")
    if recorded.is_file() and recorded.read_text(encoding="ascii").split()[:1] != [file_sha256(path)]:
        raise UserError(f"{path}: its sha256 is not the recorded one, the file was changed or damaged")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"{path}: not a checkpoint that can be loaded safely: {reason}") from error
    return content


def network_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the network alone (averaged ones where averaging was on)."""
    prefix = "network."
    state = checkpoint["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def file_sha256(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
