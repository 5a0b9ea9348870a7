"""What a plan may spend, and the regime that goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.config.schema_planning import Regime
from pipeline.errors import UserError
from pipeline.planning.document import Chosen, Node

AnyRegime = TypeVar("AnyRegime", bound=Regime)


@dataclass(frozen=True)
class Budget:
    """``text``: training time of a fold as the user wrote it; ``seconds``: the same, None for no limit.

    ``memory_gb``: of the device that trains (10^9 bytes, or GiB: the rule is not that exact). ``accelerator``: the
    device that the plan is for. ``devices``: how many share a batch.
    """

    text: str
    seconds: float | None
    memory_gb: float
    accelerator: Literal["cpu", "gpu"]
    devices: int = 1

    @property
    def words(self) -> str:
        """For people."""
        time = "no limit of time" if self.seconds is None else f"{self.text} of training a fold"
        of_devices = f"{self.devices} devices with " if self.devices > 1 else ""
        return f"{time}, {of_devices}{self.memory_gb:g} GB, {self.accelerator.upper()}"

    def batch_section(self, batch: int, why: str) -> Mapping[str, Node]:
        """The keys of ``sampling`` that give all devices together ``batch`` samples, or the next lower number that they
        can share."""
        if self.devices > 1:
            each = max(1, batch // self.devices)
            batch, why = each * self.devices, f"{why}; {each} on each of {self.devices} devices"
        return {
            "batch_size": Chosen(batch, why),
            "batch_of": Chosen("all", "devices share it, so that a training takes the same steps on one as on many"),
        }

    def regime(self, table: Sequence[AnyRegime], shape: Sequence[int] | None = None) -> AnyRegime:
        """The first row of a table of regimes that fits, for a median image of ``shape`` voxels (None: unknown yet).

        Raises UserError where none does.
        """
        minutes = None if self.seconds is None else self.seconds / 60
        for row in table:
            if row.accelerator == self.accelerator and row.holds(minutes) and row.suits(shape):
                return row
        raise UserError(
            f"planning: no regime for {self.words}", "end the table of regimes with a row whose below_min is null"
        )
