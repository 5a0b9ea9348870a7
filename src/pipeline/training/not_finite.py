"""Gradients that are not finite: the batch is kept for inspection, and training stops or leaves the step out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from pipeline.errors import UserError
from pipeline.training.breakdown import NoteBatch
from pipeline.training.shards import all_finite

log = logging.getLogger(__name__)

FOLDER = "not_finite"  # in the folder of a fold
MOST_SAVED = 10  # batches of a process


@dataclass(frozen=True)
class Step:
    """A step of the optimizer, and what its gradients were."""

    finite: Tensor  # () bool, where the processor can read it once ``known``
    known: torch.cuda.Event | None
    loss: Tensor | None
    batches: Sequence[Mapping[str, Any]]
    epoch: int  # from 1, as the number of the step
    number: int


class WatchGradients(Callback):
    """Looks at the norm of the gradients before every step of the optimizer; a loss that is NaN makes it NaN too.

    ``stop`` raises UserError before such weights are validated or saved. A GPU is not waited for: there the norm of a
    step is looked at when the next is ready, or is to be saved. ``skip`` leaves the step out: the optimizer sees no
    gradients, and ``pl_module.last_loss`` is None. ``note`` knows the batches of the step.
    """

    def __init__(self, on_nan: Literal["stop", "skip"], note: NoteBatch, folder: Path) -> None:
        self.on_nan = on_nan
        self.note = note
        self.folder = folder / FOLDER
        self._saved = 0
        self._open: Step | None = None  # taken, not looked at

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite, known = all_finite(gradients), None
        self._look(trainer)
        if finite.device.type == "cuda" and self.on_nan == "stop":
            there, finite = finite, torch.empty((), dtype=torch.bool, pin_memory=True)
            finite.copy_(there, non_blocking=True)
            known = torch.cuda.Event()
            known.record()
        loss: Tensor | None = getattr(pl_module, "last_loss", None)
        step = Step(finite, known, loss, self.note.batches, trainer.current_epoch + 1, trainer.global_step + 1)
        if known is not None:
            self._open = step
        elif not bool(finite):
            self._tell(trainer, step)
            pl_module.last_loss = None  # type: ignore[assignment]
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._open is not None and self._open.known is not None and self._open.known.query():
            self._look(trainer)  # at no cost, and its batches need not be kept

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        """Look at the step that was taken last."""
        step, self._open = self._open, None
        if step is None:
            return
        assert step.known is not None
        step.known.synchronize()
        if not bool(step.finite):
            self._tell(trainer, step)

    def _tell(self, trainer: Trainer, step: Step) -> None:
        loss = float("nan") if step.loss is None else float(step.loss)
        what = f"the loss is {loss}" if not np.isfinite(loss) else "the gradients are not finite"
        cases = ", ".join(dict.fromkeys(case for batch in step.batches for case in self.note.of(batch)))
        where = f"epoch {step.epoch}, step {step.number}: {what}, cases {cases}"
        saved = [self._save(trainer, step.number, batch) for batch in step.batches]
        if self.on_nan == "stop":
            raise UserError(
                where,
                *(f"the batch is kept in {path}" for path in saved if path is not None),
                "look at these images; a lower optimizer.lr or trainer.precision=32 may help",
                "on_nan=skip leaves such steps out and counts them",
            )
        log.warning("%s: step left out (on_nan=skip)", where)

    def _save(self, trainer: Trainer, step: int, batch: Mapping[str, Any]) -> Path | None:
        if self._saved == MOST_SAVED:
            return None
        self._saved += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step_{step}_process_{trainer.global_rank}_{self._saved}.npz"
        tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        arrays: dict[str, Any] = {key: value.detach().float().cpu().numpy() for key, value in tensors.items()}
        arrays["case_id"] = np.array(self.note.of(batch))
        np.savez_compressed(self.folder / name, **arrays)
        return self.folder / name
