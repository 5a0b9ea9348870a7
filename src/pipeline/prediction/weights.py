"""The weights in a checkpoint, read without running anything that is in it."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError

SLACK = 1 << 26  # bytes that any checkpoint may unpack to
DIGEST_SUFFIX = ".sha256"  # of the file beside a checkpoint that holds its digest


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, tensors and plain types only; a missing or damaged file raises :class:`UserError`."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint", "was the fold trained? see fold_*/checkpoints in the run folder")
    recorded = path.with_name(path.name + DIGEST_SUFFIX)
    if recorded.is_file():
        said = recorded.read_text(encoding="ascii", errors="replace").lower().split()[:1]
        if said != [file_sha256(path)]:
            raise UserError(f"{path}: its sha256 is not the recorded one, the file was changed or damaged")
    _require_plain(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: {_reason(error)}", "use a checkpoint that this pipeline wrote") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: holds no weights (state_dict), it is not a checkpoint of this pipeline")
    return content


def _require_plain(path: Path) -> None:
    """Refuse a checkpoint that unpacks to much more than its size: torch compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # no archive, or a damaged one: torch tells
    if total > max(SLACK, 2 * path.stat().st_size):
        raise UserError(
            f"{path}: unsafe, not loaded: it unpacks to {total:,} bytes, too large for its size",
            "use a checkpoint that this pipeline wrote",
        )


def _reason(error: Exception) -> str:
    """Why a checkpoint was refused, without torch's advice to load it all the same."""
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", text)
        holds = f"the object {named.group(1)}" if named else "more than tensors and plain values"
        return f"unsafe, not loaded: its pickle holds {holds}, which could run code (weights_only)"
    first = text.splitlines()[0].split(". ")[0] if text else repr(error)
    return f"not a checkpoint that can be read, truncated or corrupt: {first}"


def network_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the network alone (averaged ones where averaging was on)."""
    prefix = "network."
    state = checkpoint["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def file_sha256(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def weights_digests(folder: Path) -> dict[str, str]:
    """sha256 of the network's weights in each checkpoint of a folder: of names, types, shapes and bytes alone."""
    return {path.stem: weights_sha256(network_weights(read_checkpoint(path))) for path in sorted(folder.glob("*.ckpt"))}


def weights_sha256(weights: dict[str, torch.Tensor]) -> str:
    """sha256 of weights, the same whatever file holds them."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
