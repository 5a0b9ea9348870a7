"""The truth that a loss compares with: classes or regions, and where they are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.collective import mean_over_processes


@dataclass(frozen=True)
class Truth:
    """Logits and truth with space flattened: ``logits`` (B, C, N), ``target`` (B, 1 or C, N), ``valid`` the same."""

    logits: Tensor
    target: Tensor
    valid: Tensor | None

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, valid: Tensor | None, weight: Tensor | None) -> Truth:
        """Raises ValueError when the shapes do not fit."""
        channels = target.shape[1]
        if target.shape != (logits.shape[0], channels, *logits.shape[2:]) or channels not in (1, logits.shape[1]):
            raise ValueError(f"logits {tuple(logits.shape)} do not fit a target {tuple(target.shape)}")
        if weight is not None and len(weight) != logits.shape[1]:
            raise ValueError(f"{len(weight)} class weights for {logits.shape[1]} classes")
        flat = logits.flatten(2) if logits.ndim > 2 else logits.unsqueeze(2)
        known = None if valid is None else valid.reshape(*valid.shape[:2], -1).expand(-1, channels, flat.shape[2])
        return cls(flat, target.reshape(*target.shape[:2], -1), known)

    @property
    def regions(self) -> bool:
        """Whether each channel of the logits is a region of its own."""
        return self.target.shape[1] == self.logits.shape[1]

    @property
    def index(self) -> Tensor:
        """Class indices (B, N) int64; 0 where the truth is not valid."""
        index = self.target[:, 0].long()
        return index if self.valid is None else index * self.valid[:, 0]

    def one_hot(self) -> Tensor:
        """(B, C, N) in the type of the logits."""
        return self.target.to(self.logits.dtype) if self.regions else one_hot(self.index, self.logits)


def mean(losses: Tensor, truth: Truth, weight: Tensor | None) -> Tensor:
    """Return the mean of ``losses`` ``(B, N)``, each counted with the weight of its true class."""
    if weight is None and truth.valid is None:
        return losses.mean()
    weights = torch.ones_like(losses) if weight is None else weight[truth.index]
    if truth.valid is not None:
        weights = weights * truth.valid[:, 0]
    # A batch may hold only classes of weight zero, or no valid voxel: its loss is zero.
    total = mean_over_processes(weights.sum())
    return (losses * weights).sum() / total.clamp_min(torch.finfo(weights.dtype).tiny)


def mean_over_regions(losses: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
    """Return the mean over regions, with their weights, of the mean over voxels of ``losses`` ``(B, R, N)``."""
    if valid is None:
        means = losses.mean(dim=(0, 2))
    else:
        known = mean_over_processes(valid.sum(dim=(0, 2)).to(losses.dtype))
        means = (losses * valid).sum(dim=(0, 2)) / known.clamp_min(torch.finfo(losses.dtype).tiny)
    return means.mean() if weight is None else (means * weight).sum() / weight.sum()


def one_hot(truth: Tensor, logits: Tensor) -> Tensor:
    """Return ``(B, C, N)`` in the type of ``logits``."""
    classes = torch.arange(logits.shape[1], device=truth.device).view(1, -1, 1)
    return (truth.unsqueeze(1) == classes).to(logits.dtype)
