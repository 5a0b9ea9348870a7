"""Gradients that are not finite: the batch is kept for inspection, and training stops or leaves the step out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch.optim import Optimizer

from pipeline.errors import UserError
from pipeline.training.breakdown import NoteBatch
from pipeline.training.shards import all_finite

log = logging.getLogger(__name__)

FOLDER = "not_finite"  # in the folder of a fold
MOST_SAVED = 10  # batches of a process


class WatchGradients(Callback):
    """Looks at the norm of the gradients before every step of the optimizer; a loss that is NaN makes it NaN too.

    ``stop`` raises UserError, with the weights as they were. ``skip`` leaves the step out: the optimizer sees no
    gradients, and ``pl_module.last_loss`` is None. ``note`` knows the batches of the step.
    """

    def __init__(self, on_nan: Literal["stop", "skip"], note: NoteBatch, folder: Path) -> None:
        self.on_nan = on_nan
        self.note = note
        self.folder = folder / FOLDER
        self._saved = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if all_finite(gradients):
            return
        last: torch.Tensor | None = getattr(pl_module, "last_loss", None)
        loss = float("nan") if last is None else float(last)
        what = f"the loss is {loss}" if not np.isfinite(loss) else "the gradients are not finite"
        cases = ", ".join(self.note.in_hand())
        where = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step + 1}: {what}, cases {cases}"
        saved = [self._save(trainer, batch) for batch in self.note.batches]
        if self.on_nan == "stop":
            raise UserError(
                where,
                *(f"the batch is kept in {path}" for path in saved if path is not None),
                "look at these images; a lower optimizer.lr or trainer.precision=32 may help",
                "on_nan=skip leaves such steps out and counts them",
            )
        log.warning("%s: step left out (on_nan=skip)", where)
        pl_module.last_loss = None  # type: ignore[assignment]
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _save(self, trainer: Trainer, batch: Mapping[str, Any]) -> Path | None:
        if self._saved == MOST_SAVED:
            return None
        self._saved += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step_{trainer.global_step + 1}_process_{trainer.global_rank}_{self._saved}.npz"
        tensors = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
        arrays: dict[str, Any] = {key: value.detach().float().cpu().numpy() for key, value in tensors.items()}
        arrays["case_id"] = np.array(self.note.of(batch))
        np.savez_compressed(self.folder / name, **arrays)
        return self.folder / name
