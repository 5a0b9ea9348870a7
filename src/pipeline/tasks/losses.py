"""Losses of segmentation and classification.

Each is called with logits ``(B, C, *spatial)`` or ``(B, C)`` float32 and the class index of each voxel or image,
``(B, 1, *spatial)`` or ``(B, 1)``, of any integer type; it returns a scalar. ``weight`` holds one number a class,
background included. It has the same meaning everywhere: a mean over voxels (or images) counts each with the weight of
its true class, a mean over classes counts each class with its own, and both divide by the sum of the weights, so that
weights shift the balance and not the size of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


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
    """Weighted mean of a loss per voxel or image; a subclass says which."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss; see the module for shapes."""
        logits, truth = _flat(logits, target, self.weight)
        return _mean(self.per_voxel(logits, truth), truth, self.weight)

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Map logits ``(B, C, N)`` and class indices ``(B, N)`` int64 to losses ``(B, N)``."""
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


class BrierLoss(VoxelLoss):
    """Squared error between softmax probabilities and the one-hot truth, summed over classes: 0 to 2.

    Source: Brier, Monthly Weather Review 1950.
    """

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the Brier score."""
        return (torch.softmax(logits, dim=1) - _one_hot(truth, logits)).square().sum(dim=1)


class BinaryCrossEntropyLoss(VoxelLoss):
    """Binary cross entropy of the sigmoid of each class against the rest, summed over classes."""

    def per_voxel(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the sum of the binary cross entropies."""
        one_hot = _one_hot(truth, logits)
        return functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(dim=1)


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
        entropy = functional.cross_entropy(logits, truth, reduction="none")
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
        if weight is not None and max(weight[1:], default=0) == 0:
            raise ValueError(f"class weights {list(weight)} leave no foreground class")
        self.alpha, self.beta, self.smooth, self.batch_dice = alpha, beta, smooth, batch_dice

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss; see the module for shapes."""
        logits, truth = _flat(logits, target, self.weight)
        return self.from_probabilities(torch.softmax(logits, dim=1), _one_hot(truth, logits))

    def from_probabilities(self, probabilities: Tensor, one_hot: Tensor) -> Tensor:
        """Return the loss of probabilities and one-hot truth, both ``(B, C, N)``."""
        overlap = (probabilities * one_hot).sum(dim=2)[:, 1:]
        predicted, true = probabilities.sum(dim=2)[:, 1:], one_hot.sum(dim=2)[:, 1:]
        if self.batch_dice:
            overlap, predicted, true = (sums.sum(dim=0, keepdim=True) for sums in (overlap, predicted, true))
        wrong = self.alpha * (predicted - overlap) + self.beta * (true - overlap)
        losses = 1 - (overlap + self.smooth) / (overlap + wrong + self.smooth)
        if self.weight is None:
            return losses.mean()
        weights = self.weight[1:]
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

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss; see the module for shapes."""
        logits, truth = _flat(logits, target, self.weight)
        log_probabilities = functional.log_softmax(logits, dim=1)
        dice = self.dice.from_probabilities(log_probabilities.exp(), _one_hot(truth, logits))
        entropy = _mean(functional.nll_loss(log_probabilities, truth, reduction="none"), truth, self.weight)
        return self.dice_factor * dice + self.ce_factor * entropy


class DeepSupervision(nn.Module):
    """Applies ``loss`` to one output, or to a list of outputs from fine to coarse with weights 1, 1/2, 1/4 ...

    The weights are divided by their sum; the truth is brought to each output's grid by nearest neighbour. nnU-Net gives
    its coarsest output the weight zero; our U-Net does not compute that one, which comes to the same.
    Source: Isensee et al., Nature Methods 2021.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the loss of logits ``(B, C, *spatial)``, or of a list of them, against ``(B, 1, *spatial)``."""
        if isinstance(outputs, Tensor):
            single: Tensor = self.loss(outputs, target)
            return single
        weights = [0.5**i for i in range(len(outputs))]
        losses = []
        for weight, logits in zip(weights, outputs, strict=True):
            truth = target
            if logits.shape[2:] != target.shape[2:]:
                truth = functional.interpolate(target.float(), size=logits.shape[2:], mode="nearest-exact")
            losses.append(weight / sum(weights) * self.loss(logits, truth))
        return torch.stack(losses).sum()


def _flat(logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return logits ``(B, C, N)`` and class indices ``(B, N)``; raises ValueError when the shapes do not fit."""
    if target.shape != (logits.shape[0], 1, *logits.shape[2:]):
        raise ValueError(f"logits {tuple(logits.shape)} do not fit a target {tuple(target.shape)}")
    if weight is not None and len(weight) != logits.shape[1]:
        raise ValueError(f"{len(weight)} class weights for {logits.shape[1]} classes")
    flat = logits.flatten(2) if logits.ndim > 2 else logits.unsqueeze(2)
    return flat, target.reshape(len(target), -1).long()


def _mean(losses: Tensor, truth: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean of ``losses`` ``(B, N)``, each counted with the weight of its true class."""
    if weight is None:
        return losses.mean()
    weights = weight[truth]
    # A batch may hold only classes of weight zero: its loss is zero.
    return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def _one_hot(truth: Tensor, logits: Tensor) -> Tensor:
    """Return ``(B, C, N)`` in the type of ``logits``."""
    classes = torch.arange(logits.shape[1], device=truth.device).view(1, -1, 1)
    return (truth.unsqueeze(1) == classes).to(logits.dtype)
