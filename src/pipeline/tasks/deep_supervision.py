"""A loss at several scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class DeepSupervision(nn.Module):
    """Applies ``loss`` to one output, or to a list of outputs from fine to coarse with weights 1, 1/2, 1/4 ...

    The weights are divided by their sum; the truth is brought to each output's grid by nearest neighbour. nnU-Net gives
    its coarsest output the weight zero; our U-Net does not compute that one, which comes to the same.
    Source: Isensee et al., Nature Methods 2021.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor | Sequence[Tensor], target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the loss of logits ``(B, C, *spatial)``, or of a list of them, against the truth (see the module)."""
        if isinstance(outputs, Tensor):
            return self._single(outputs, target, valid)
        weights = [0.5**i for i in range(len(outputs))]
        losses = []
        for weight, logits in zip(weights, outputs, strict=True):
            truth, learned = (_on_grid(mask, logits.shape[2:]) for mask in (target, valid))
            assert truth is not None
            losses.append(weight / sum(weights) * self._single(logits, truth, learned))
        return torch.stack(losses).sum()

    def _single(self, logits: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        # A loss of the user's own or of MONAI takes two arguments.
        loss: Tensor = self.loss(logits, target) if valid is None else self.loss(logits, target, valid)
        return loss


def _on_grid(mask: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    """A truth or a validity mask brought to another grid by nearest neighbour."""
    if mask is None or mask.shape[2:] == torch.Size(shape):
        return mask
    coarse = functional.interpolate(mask.float(), size=tuple(shape), mode="nearest-exact")
    return coarse.bool() if mask.dtype == torch.bool else coarse
