"""How many trials of a study are in which state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Counts:
    """How many trials are in which state."""

    complete: int
    pruned: int
    failed: int
    running: int

    @property
    def ended(self) -> int:
        """Those that ``sweep.trials`` counts."""
        return self.complete + self.pruned


def counts_of(trials: Sequence[FrozenTrial]) -> Counts:
    """How many of these are in which state."""
    states = [trial.state.name for trial in trials]
    return Counts(*(states.count(name) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")))
