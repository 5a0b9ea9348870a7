"""Classification of whole images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.collective import merged
from pipeline.evaluation.classification_metrics import classification_metrics
from pipeline.networks.engine import as_written
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
        self._found: dict[int, tuple[Tensor, int]] = {}  # probabilities and target by the case's number

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Remember the probabilities of the batch."""
        with as_written(self.network):
            probabilities = torch.softmax(self.network(batch["image"]).float(), dim=1).cpu()
        targets = batch["target"][:, 0].tolist()
        self._found |= dict(zip(batch["index"].tolist(), zip(probabilities, targets, strict=True), strict=True))

    def on_validation_epoch_end(self) -> None:
        """Log AUROC and accuracy over all validation cases, those of other processes too."""
        found = merged(self._found)
        self._found.clear()
        if not found:
            return
        probabilities = torch.stack([chances for chances, _ in found]).numpy()
        targets = np.array([target for _, target in found])
        metrics = classification_metrics(targets, probabilities, None, class_names=self.class_names)
        self.log("val_accuracy", float(metrics["accuracy"]["mean"]))
        auroc = float(metrics["auroc"]["mean"])
        self.log("val_metric", auroc if auroc == auroc else 0.0)  # one class only: undefined
