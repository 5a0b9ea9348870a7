"""How far a fold is, in a file of its folder: what a table of several processes is made from."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.json_file import read_json, write_json

PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class FoldProgress:
    """``share`` of the training from 0 to 1, ``left`` seconds of it, and what a person sees beside."""

    share: float
    left: float | None  # s
    text: str

    def write(self, folder: Path) -> None:
        """Nothing depends on it: a full disk is told where something does."""
        with suppress(OSError):
            write_json(folder / PROGRESS_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> FoldProgress | None:
        """What was written last, None before."""
        try:
            return cls(**read_json(folder / PROGRESS_FILE))
        except (OSError, ValueError, TypeError):
            return None
