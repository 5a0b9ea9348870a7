"""Segmentation: patches in training, whole cases in validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.tasks.base import OptimizerFactory, Task


class SegmentationTask(Task):
    """Trains on patches; validates by the Dice of whole cases on the preprocessed grid.

    ``predictor(network, image)`` gives the logits of a whole image. ``val_metric`` is the mean over foreground
    classes of the mean over cases in which the class occurs in truth or prediction.
    """

    truth = "label"
    metric = "Dice"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        *,
        predictor: Callable[[Any, Tensor], Tensor],
        class_names: tuple[str, ...],
        seed: int,
    ) -> None:
        super().__init__(network, loss, optimizer, seed=seed)
        self.predictor = predictor
        self.class_names = class_names
        self._dice: list[Tensor] = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Dice per class of every case in the batch."""
        prediction = self.predictor(self.network, batch["image"]).argmax(dim=1)
        for predicted, truth in zip(prediction, batch["label"][:, 0], strict=True):
            self._dice.append(dice_per_class(predicted, truth, len(self.class_names)))

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice, and that of each class."""
        if not self._dice:
            return
        per_class = torch.stack(self._dice).nanmean(dim=0)
        self._dice.clear()
        for name, value in zip(self.class_names[1:], per_class, strict=True):
            if not torch.isnan(value):
                self.log(f"val_dice_{name}", value)
        self.log("val_metric", torch.nan_to_num(per_class.nanmean(), nan=0.0))


def dice_per_class(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Dice of classes 1.. of two index arrays; NaN where a class is in neither."""
    joint = torch.bincount(truth.flatten().long() * classes + prediction.flatten(), minlength=classes**2)
    joint = joint.view(classes, classes).double()
    both, either = joint.diagonal(), joint.sum(dim=0) + joint.sum(dim=1)
    return (2 * both / either)[1:].float()
