"""Losses of segmentation and classification.

Each is called with logits ``(B, C, *spatial)`` or ``(B, C)`` float32 and the truth, and returns a scalar. The truth is
the class index of each voxel or image, ``(B, 1, *spatial)`` or ``(B, 1)``, of any integer type: classes exclude each
other (softmax). Or it has as many channels as the logits, each 0 or 1: regions, which may overlap (sigmoid), and the
loss is that of each region against the rest, the mean over regions. ``valid``: bool, of the shape of the truth or with
one channel; where it is False nothing is learned.

``weight`` holds one number a class, background included, or one a region. It has the same meaning everywhere: a mean
over voxels (or images) counts each with the weight of its true class, a mean over classes counts each class with its
own, and both divide by the sum of the weights, so that weights shift the balance and not the size of the loss.

Of several processes that train together each computes the loss of its part of the batch; their mean, and the gradient
of it, are those of the whole batch: sums over the batch by which a loss divides are those of all processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.collective import sum_over_processes
from pipeline.tasks.dice_ce import DiceCrossEntropy
from pipeline.tasks.truth import Truth, mean, mean_over_regions, one_hot


class WeightedLoss(nn.Module):
    """Holds the class weights, None for equal ones. Raises ValueError when one is negative or all are zero."""

    def __init__(self, weight: Sequence[float] | None = None) -> None:
        super().__init__()
        if weight is not None and (min(weight) < 0 or max(weight) == 0):
            raise ValueError(f"class weights {list(weight)} must not be negative, nor all zero")
        tensor = None if weight is None else torch.tensor(list(weight), dtype=torch.float32)
        self.weight: Tensor | None
        # Weights belong to the training fold, not to the trained network: they stay out of checkpoints.
        self.register_buffer("weight", tensor, persistent=False)


class VoxelLoss(WeightedLoss):
    """Weighted mean of a loss per voxel or image; a subclass says which, for classes and for regions."""

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the loss; see the module for shapes."""
        truth = Truth.of(logits, target, valid, self.weight)
        if truth.regions:
            return mean_over_regions(self.per_region(truth.logits, truth.one_hot()), truth.valid, self.weight)
        return mean(self.per_voxel(truth.logits, truth.index), truth, self.weight)

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Map logits ``(B, C, N)`` and class indices ``(B, N)`` int64 to losses ``(B, N)``."""
        raise NotImplementedError

    def per_region(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Map logits and truth (0 or 1) ``(B, R, N)`` to losses ``(B, R, N)``."""
        raise NotImplementedError


class CrossEntropyLoss(VoxelLoss):
    """Cross entropy of the softmax; ``label_smoothing`` spreads that share of the truth evenly over all classes.

    Source: Szegedy et al., CVPR 2016 (smoothing). Unlike torch's, smoothing follows the weight of the true class.
    """

    def __init__(self, weight: Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(weight)
        self.label_smoothing = label_smoothing

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return minus the logarithm of the true class's probability."""
        return functional.cross_entropy(logits, truth, reduction="none", label_smoothing=self.label_smoothing)

    def per_region(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the binary cross entropy; smoothing as if inside and outside were two classes."""
        smooth = truth * (1 - self.label_smoothing) + self.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")


class BrierLoss(VoxelLoss):
    """Squared error between softmax probabilities and the one-hot truth, summed over classes: 0 to 2.

    Source: Brier, Monthly Weather Review 1950.
    """

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the Brier score."""
        return (torch.softmax(logits, dim=1) - one_hot(truth, logits)).square().sum(dim=1)

    def per_region(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the Brier score of inside and outside as two classes."""
        return 2 * (torch.sigmoid(logits) - truth).square()


class BinaryCrossEntropyLoss(VoxelLoss):
    """Binary cross entropy of the sigmoid of each class against the rest, summed over classes."""

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the sum of the binary cross entropies."""
        return functional.binary_cross_entropy_with_logits(logits, one_hot(truth, logits), reduction="none").sum(dim=1)

    def per_region(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the binary cross entropy."""
        return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")


class FocalLoss(VoxelLoss):
    """Cross entropy times ``(1 - p) ** gamma``, with p the softmax probability of the true class.

    Equals MONAI's softmax FocalLoss times the number of classes (MONAI also averages over the zeros of wrong classes).
    Source: Lin et al., ICCV 2017.
    """

    def __init__(self, weight: Sequence[float] | None = None, gamma: float = 2.0) -> None:
        super().__init__(weight)
        self.gamma = gamma

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the focal loss."""
        return self._focus(functional.cross_entropy(logits, truth, reduction="none"))

    def per_region(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the binary focal loss."""
        return self._focus(functional.binary_cross_entropy_with_logits(logits, truth, reduction="none"))

    def _focus(self, entropy: Tensor) -> Tensor:
        # 1 - exp(-entropy), exact where the entropy is tiny; the power's gradient at zero must stay finite.
        miss = -torch.expm1(-entropy)
        return entropy * miss.clamp_min(torch.finfo(miss.dtype).tiny) ** self.gamma


class TverskyLoss(WeightedLoss):
    """One minus the soft Tversky index ``(TP + s) / (TP + alpha FP + beta FN + s)``, mean over foreground classes.

    One index per image and class, or with ``batch_dice`` one per class over the whole batch. The background's
    weight is not used.
    Source: Salehi et al., MLMI 2017.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        *,
        alpha: float,
        beta: float,
        smooth: float = 1e-5,
        batch_dice: bool = False,
    ) -> None:
        super().__init__(weight)
        if weight is not None and len(weight) > 1 and max(weight[1:]) == 0:
            raise ValueError(f"class weights {list(weight)} leave no foreground class")
        self.alpha, self.beta, self.smooth, self.batch_dice = alpha, beta, smooth, batch_dice

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the loss; see the module for shapes."""
        truth = Truth.of(logits, target, valid, self.weight)
        probabilities = torch.sigmoid(truth.logits) if truth.regions else torch.softmax(truth.logits, dim=1)
        return self.from_probabilities(probabilities, truth)

    def from_probabilities(self, probabilities: Tensor, truth: Truth) -> Tensor:
        """Return the loss of probabilities ``(B, C, N)``."""
        true_mask = truth.one_hot()
        if truth.valid is not None:
            probabilities, true_mask = probabilities * truth.valid, true_mask * truth.valid
        first = 0 if truth.regions else 1
        overlap = (probabilities * true_mask).sum(dim=2)[:, first:]
        predicted, true = probabilities.sum(dim=2)[:, first:], true_mask.sum(dim=2)[:, first:]
        if self.batch_dice:  # of all processes
            sums = torch.stack([part.sum(dim=0, keepdim=True) for part in (overlap, predicted, true)])
            overlap, predicted, true = sum_over_processes(sums)
        wrong = self.alpha * (predicted - overlap) + self.beta * (true - overlap)
        losses = 1 - (overlap + self.smooth) / (overlap + wrong + self.smooth)
        if self.weight is None:
            return losses.mean()
        weights = self.weight[first:]
        return (losses * weights).sum(dim=1).mean() / weights.sum()


class DiceLoss(TverskyLoss):
    """One minus the soft Dice ``(2 TP + s) / (|P| + |T| + s)``, mean over foreground classes.

    One Dice per image and class, or with ``batch_dice`` one per class over the whole batch.
    Source: Milletari et al., 3DV 2016; equals MONAI's DiceLoss with ``smooth_nr = smooth_dr = smooth``.
    """

    def __init__(
        self, weight: Sequence[float] | None = None, *, smooth: float = 1e-5, batch_dice: bool = False
    ) -> None:
        super().__init__(weight, alpha=0.5, beta=0.5, smooth=smooth / 2, batch_dice=batch_dice)


class DiceCELoss(WeightedLoss):
    """``dice_factor`` times the Dice loss plus ``ce_factor`` times cross entropy (of all classes, background too).

    Source: Isensee et al., Nature Methods 2021; without weights it equals MONAI's DiceCELoss.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        *,
        smooth: float = 1e-5,
        batch_dice: bool = False,
        dice_factor: float = 1.0,
        ce_factor: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.dice = DiceLoss(weight, smooth=smooth, batch_dice=batch_dice)
        self.dice_factor, self.ce_factor = dice_factor, ce_factor

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the loss; see the module for shapes."""
        truth = Truth.of(logits, target, valid, self.dice.weight)
        if self.weight is None and truth.valid is None and not truth.regions:
            how = (2 * self.dice.smooth, self.dice.batch_dice, self.dice_factor, self.ce_factor)
            loss: Tensor = DiceCrossEntropy.apply(truth.logits, truth.index, *how)  # type: ignore[no-untyped-call]
            return loss
        if truth.regions:
            dice = self.dice.from_probabilities(torch.sigmoid(truth.logits), truth)
            entropies = functional.binary_cross_entropy_with_logits(truth.logits, truth.one_hot(), reduction="none")
            entropy = mean_over_regions(entropies, truth.valid, self.weight)
        else:
            log_probabilities = functional.log_softmax(truth.logits, dim=1)
            dice = self.dice.from_probabilities(log_probabilities.exp(), truth)
            entropy = mean(functional.nll_loss(log_probabilities, truth.index, reduction="none"), truth, self.weight)
        return self.dice_factor * dice + self.ce_factor * entropy
