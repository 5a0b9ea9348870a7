"""A network that goes on without some of its modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class CompleteModalities(nn.Module):
    """Gives channels that are absent (NaN anywhere) a constant before ``network`` sees them.

    ``fill``: one value per channel, such as its mean over the training cases; it is stored with the weights.
    """

    def __init__(self, network: nn.Module, fill: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.fill: Tensor
        self.register_buffer("fill", torch.tensor(list(fill), dtype=torch.float32))

    def forward(self, image: Tensor) -> Any:
        """What ``network`` gives for ``image`` (B, C, *spatial)."""
        absent = torch.isnan(image).flatten(2).any(dim=2).view(*image.shape[:2], *[1] * (image.ndim - 2))
        fill = self.fill.to(image.dtype).view(1, -1, *[1] * (image.ndim - 2))
        return self.network(torch.where(absent, fill, image))
