"""From the network's outputs to class indices: classes that exclude each other, or regions that overlap."""

from __future__ import annotations

from collections.abc import Iterable
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
        probabilities = (torch.sigmoid(value) if logits else value for value in values)
        return self.of_classes(probabilities)

    def of_classes(self, probabilities: Iterable[Tensor]) -> Tensor:
        """Class indices (*spatial) uint8 of probabilities (*spatial) that come one output after the other."""
        found: Tensor | None = None
        highest: Tensor | None = None
        for number, values in enumerate(probabilities):
            if found is None:
                found = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
            if self.painted is not None:
                found.masked_fill_(values > self.threshold, self.painted[number])
            elif highest is None:
                highest = values.clone()
            else:
                found.masked_fill_(values > highest, number)
                torch.maximum(highest, values, out=highest)
        assert found is not None, "there is an output"
        return found
