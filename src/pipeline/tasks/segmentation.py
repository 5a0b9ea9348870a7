"""Segmentation: patches in training, whole cases in validation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.collective import merged
from pipeline.data.labels import IGNORED, Labels
from pipeline.inference.decision import Decision
from pipeline.inference.predictor import SlidingWindow
from pipeline.networks.engine import as_written
from pipeline.tasks.base import OptimizerFactory, Task
from pipeline.tasks.mask_truth import MaskTruth


class SegmentationTask(Task):
    """Trains on patches; validates by the Dice of whole cases on the preprocessed grid.

    ``predictor`` gives the logits of a whole image piece by piece, ``decision`` their class indices. ``val_metric`` is
    the mean over foreground classes (or regions) of the mean over cases in which one occurs in truth or prediction.
    A batch may hold ``annotated`` (B, outputs) bool: what each case annotates.
    """

    truth = "label"
    metric = "Dice"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        *,
        predictor: SlidingWindow,
        decision: Decision,
        labels: Labels,
        seed: int,
    ) -> None:
        super().__init__(network, loss, optimizer, seed=seed)
        self.predictor = predictor
        self.decision = decision
        self.labels = labels
        self.mask_truth = MaskTruth(labels)
        self._dice: dict[int, Tensor] = {}  # by the case's number in the validation

    def loss_of(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Loss of logits against classes or regions, where they are annotated."""
        annotated = batch.get("annotated")
        target, valid = self.mask_truth(batch[self.truth], annotated)
        loss: Tensor = self.loss(self.mask_truth.reduce(outputs, annotated), target, valid)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Dice per class or region of every case in the batch."""
        for number, (image, truth) in enumerate(zip(batch["image"], batch["label"][:, 0], strict=True)):
            with as_written(self.network):
                counts = self._counts(image, truth)
            dice = dice_per_part(counts, self.labels.parts)
            if "annotated" in batch:
                known = batch["annotated"][number][-len(dice) :]
                dice = torch.where(known, dice, torch.nan)
            self._dice[int(batch["index"][number])] = dice.cpu()

    def _counts(self, image: Tensor, truth: Tensor) -> Tensor:
        """Voxels of a case by class in the truth and in the prediction; see ``joint_counts``."""
        along, classes = self.predictor.axis(image.shape[1:]), len(self.labels.names)
        total = torch.zeros(classes, classes, dtype=torch.int64, device=truth.device)
        for start, logits in self.predictor.blocks([self.network], image):
            indices = self.decision.indices(logits, logits=True).to(truth.device)
            total += joint_counts(indices, truth.narrow(along, start, indices.shape[along]), classes)
        return total

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice, and that of each class or region, over the cases of all processes."""
        found = merged(self._dice)
        self._dice.clear()
        if not found:
            return
        per_class = torch.stack(found).nanmean(dim=0)
        for name, value in zip(self.labels.parts, per_class, strict=True):
            if not torch.isnan(value):
                self.log(f"val_dice_{name}", value)
        self.log("val_metric", torch.nan_to_num(per_class.nanmean(), nan=0.0))


def joint_counts(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """How many voxels have each pair of classes, (truth, prediction) int64.

    Those whose truth is IGNORED are left out.
    """
    truth, prediction = truth.flatten().long(), prediction.flatten()
    known = truth != IGNORED
    if not bool(known.all()):
        truth, prediction = truth[known], prediction[known]
    return torch.bincount(truth * classes + prediction, minlength=classes**2).view(classes, classes)


def dice_per_part(joint: Tensor, parts: dict[str, tuple[int, ...]]) -> Tensor:
    """Dice of each part (a set of class indices) from ``joint_counts``; NaN where it is in neither."""
    joint = joint.double()
    member = torch.zeros(len(parts), len(joint), dtype=torch.float64, device=joint.device)
    for row, part in zip(member, parts.values(), strict=True):
        row[list(part)] = 1
    both = (member @ joint * member).sum(dim=1)
    either = member @ (joint.sum(dim=0) + joint.sum(dim=1))
    return (2 * both / either).float()
