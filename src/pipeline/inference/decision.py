"""From the network's outputs to class indices: classes that exclude each other, or regions that overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decision:
    """How logits become probabilities, and probabilities class indices.

    ``painted`` None: softmax and the most probable class. Else one class index per region: sigmoid, and where the
    probability of a region exceeds ``threshold`` its index is painted, from the first region to the last, over what is
    there (nnU-Net's regions, Isensee et al. 2021).
    """

    painted: tuple[int, ...] | None = None
    threshold: float = 0.5

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B, K, ...) of logits (B, K, ...)."""
        return torch.softmax(logits, dim=1) if self.painted is None else torch.sigmoid(logits)

    def indices(self, values: Tensor, *, logits: bool = False) -> Tensor:
        """Class indices (*spatial) uint8 of ``values`` (K, *spatial): probabilities, or ``logits`` of them."""
        if self.painted is None:
            return values.argmax(dim=0).to(torch.uint8)
        found = torch.zeros(values.shape[1:], dtype=torch.uint8, device=values.device)
        for index, value in zip(self.painted, values, strict=True):
            found[(torch.sigmoid(value) if logits else value) > self.threshold] = index
        return found
