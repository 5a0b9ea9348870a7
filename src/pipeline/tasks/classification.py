"""Classification of whole images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.evaluation.classification_metrics import classification_metrics
from pipeline.tasks.base import OptimizerFactory, Task


class ClassificationTask(Task):
    """Trains and validates on whole images; ``val_metric`` is the macro AUROC."""

    truth = "target"
    metric = "AUROC"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        *,
        class_names: tuple[str, ...],
        seed: int,
    ) -> None:
        super().__init__(network, loss, optimizer, seed=seed)
        self.class_names = class_names
        self._probabilities: list[Tensor] = []
        self._targets: list[Tensor] = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Remember the probabilities of the batch."""
        self._probabilities.append(torch.softmax(self.network(batch["image"]).float(), dim=1).cpu())
        self._targets.append(batch["target"][:, 0].cpu())

    def on_validation_epoch_end(self) -> None:
        """Log AUROC and accuracy over all validation cases."""
        if not self._targets:
            return
        probabilities, targets = torch.cat(self._probabilities).numpy(), torch.cat(self._targets).numpy()
        self._probabilities.clear()
        self._targets.clear()
        metrics = classification_metrics(targets, probabilities, None, class_names=self.class_names)
        self.log("val_accuracy", float(metrics["accuracy"]["mean"]))
        auroc = float(metrics["auroc"]["mean"])
        self.log("val_metric", auroc if auroc == auroc else 0.0)  # one class only: undefined
