"""The file of a fold with which nothing is left to be done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.json_file import read_json, write_json
from pipeline.training.fold import FittedFold

FINISHED_FILE = "finished.json"


def is_finished(folder: Path) -> bool:
    """Whether the fold in ``folder`` is trained, predicted and reported."""
    return (folder / FINISHED_FILE).exists() and FittedFold.read(folder) is not None


def finish(folder: Path, rebalanced: Mapping[str, object]) -> None:
    """Say so; ``rebalanced``: how its classes were, for the summary."""
    write_json(folder / FINISHED_FILE, {"rebalanced": dict(rebalanced)})


def rebalanced(folder: Path) -> Mapping[str, object]:
    """How the classes were rebalanced in a finished fold."""
    found: Mapping[str, object] = read_json(folder / FINISHED_FILE)["rebalanced"]
    return found
