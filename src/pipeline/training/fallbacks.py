"""How many patches could not be centred on a class, because their case has none."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

METRIC = "sampling_fallback"


class CountFallbacks(Callback):
    """Logs ``sampling_fallback``: the patches of the epoch, of all processes, that fell back to anywhere.

    Batches say it under ``fallback`` (B,) bool; those without the key are not counted.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(batch, dict) and "fallback" in batch:
            pl_module.log(
                METRIC,
                batch["fallback"].sum().float(),
                on_step=False,
                on_epoch=True,
                reduce_fx="sum",
                sync_dist=True,
                batch_size=len(batch["fallback"]),
            )
