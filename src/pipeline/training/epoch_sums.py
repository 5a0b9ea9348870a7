"""What an epoch adds up to: the mean loss, and how often something did not go as asked for."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from pipeline.collective import gathered
from pipeline.ranks import rank

LOSS, FALLBACK, SKIPPED = "train_loss", "sampling_fallback", "skipped_steps"


class EpochSums(Callback):
    """Sums over the batches of an epoch and all processes; a resumed epoch goes on with those it had.

    ``train_loss``: mean over samples. ``sampling_fallback``: patches that were to be centred on a class that their case
    does not have; batches say it under ``fallback`` (B,) bool. ``skipped_steps``: batches whose loss was not finite.
    The task holds the loss of the last batch in ``last_loss``, None for a skipped one.
    """

    def __init__(self) -> None:
        self.fallbacks = self.skipped = 0  # of the whole training
        self._sums: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss: Tensor | None = getattr(pl_module, "last_loss", None)
        size = len(batch["image"])
        # Counts stay with the processor: bringing a number to a GPU waits for all that it has still to do.
        self._add("samples", torch.tensor(0 if loss is None else size))
        self._add(SKIPPED, torch.tensor(int(loss is None)))
        if loss is not None:
            self._add(LOSS, loss.double() * size)
        if "fallback" in batch:
            self._add(FALLBACK, batch["fallback"].sum())

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value.double()

    def take(self, trainer: Trainer) -> dict[str, float]:
        """The values of the epoch that ends; the next starts from nothing. To be called by every process."""
        names = sorted(self._sums)
        device = trainer.strategy.root_device
        sums = torch.stack([self._sums[name].to(device) for name in names]) if names else torch.zeros(0)
        if trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, reduce_op="sum")
        values = dict(zip(names, sums.tolist(), strict=True))
        self._sums = {}
        samples = values.pop("samples", 0.0)
        if LOSS in values and samples:
            values[LOSS] /= samples
        self.fallbacks += int(values.get(FALLBACK, 0))
        self.skipped += int(values.get(SKIPPED, 0))
        if not values.get(SKIPPED):
            values.pop(SKIPPED, None)
        return values

    def state_dict(self) -> dict[str, Any]:
        # Every process saves, the first one's state is written. From the processor: no GPU lands on another's.
        parts = gathered({name: value.cpu() for name, value in self._sums.items()})
        names = dict.fromkeys(name for part in parts for name in part)
        sums = {name: torch.stack([part[name] for part in parts if name in part]).sum(0) for name in names}
        return {"sums": sums, "fallbacks": self.fallbacks, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        share = 1 if rank() == 0 else 0  # the sums are of all processes, so one of them goes on with them
        self._sums = {name: value * share for name, value in state_dict["sums"].items()}
        self.fallbacks, self.skipped = state_dict["fallbacks"], state_dict["skipped"]
