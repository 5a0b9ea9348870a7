"""A running average of the weights, for short trainings too."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn


class WarmEMA(WeightAveraging):
    """Lightning's weight averaging with decay ``min(decay, (1 + n) / (10 + n))`` after n updates.

    The warm-up (as in TensorFlow's ExponentialMovingAverage) forgets the random start quickly, which short trainings
    need. Validation, checkpoints' ``state_dict`` and predictions use the averaged weights. The average lies on the
    device that trains, and its count with the processor: nothing here waits for a GPU.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._latest_update_step:
            assert self._average_model is not None
            update(self._average_model.module, pl_module, int(self._average_model.n_averaged), self.decay)
            self._average_model.n_averaged += 1
            self._latest_update_step = trainer.global_step


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, n: int, decay: float) -> None:
    """Bring ``average``, of ``n`` models so far, nearer to ``model``; the first is copied."""
    floats: tuple[list[Tensor], list[Tensor]] = ([], [])
    ours, theirs = chain(average.parameters(), average.buffers()), chain(model.parameters(), model.buffers())
    for a, c in zip(ours, theirs, strict=True):
        if n > 0 and a.is_floating_point():
            floats[0].append(a)
            floats[1].append(c)
        else:
            a.copy_(c)
    if floats[0]:
        torch._foreach_lerp_(*floats, 1 - min(decay, (1 + n) / (10 + n)))
