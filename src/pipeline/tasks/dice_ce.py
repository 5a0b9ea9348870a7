"""Dice and cross entropy of exclusive classes with their gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.collective import processes, summed


class DiceCrossEntropy(torch.autograd.Function):
    """``dice_factor`` times soft Dice plus ``ce_factor`` times cross entropy, unweighted, every voxel valid.

    ``logits``: (B, C, N) float32; ``index``: (B, N) int64. The value is that of ``DiceCELoss``; left to autograd it
    passes over the probabilities twice as often.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        index: Tensor,
        smooth: float,
        batch_dice: bool,
        dice_factor: float,
        ce_factor: float,
    ) -> Tensor:
        logarithms = torch.log_softmax(logits, dim=1)
        entropy = -logarithms.gather(1, index.unsqueeze(1)).mean()
        p = logarithms.exp_()
        classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1)
        truth = (index.unsqueeze(1) == classes).to(logits.dtype)
        # (B, C, 1), or (1, C, 1) of the whole batch; the background stays out.
        sums = [torch.linalg.vecdot(p, truth), p.sum(dim=2), truth.sum(dim=2)]
        if batch_dice:  # of all processes
            sums = list(summed(torch.stack([part.sum(dim=0, keepdim=True) for part in sums])))
        overlap, predicted, true = (part[:, 1:].unsqueeze(2) for part in sums)
        above, below = overlap + smooth / 2, (predicted + true) / 2 + smooth / 2
        ratio = above / below
        # What one more unit of overlap and of prediction changes in the mean over images and classes.
        share = dice_factor / ratio.numel() * (processes() if batch_dice else 1)  # gradients are averaged over them
        ctx.of_overlap, ctx.of_predicted = -share / below, share * ratio / (2 * below)
        ctx.ce_share = ce_factor / index.numel()
        ctx.save_for_backward(p, truth)
        loss: Tensor = dice_factor * (1 - ratio).mean() + ce_factor * entropy
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        p, truth = ctx.saved_tensors
        foreground = p[:, 1:]
        # Through the softmax: p * (d - sum of p * d), with d the derivative by p, zero for the background.
        by_p = torch.addcmul(ctx.of_predicted, ctx.of_overlap, truth[:, 1:])
        weighted = by_p.mul_(foreground)
        common = weighted.sum(dim=1, keepdim=True).neg_().add_(ctx.ce_share)
        result = (p * common).sub_(truth, alpha=ctx.ce_share)
        result[:, 1:].add_(weighted)
        return result.mul_(gradient), None, None, None, None, None
