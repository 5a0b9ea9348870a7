"""Random Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability, checked_range


def add_noise(image: Tensor, std: float, seed: int) -> None:
    """Add Gaussian noise of this standard deviation in place: the same on every device, drawn by the processor."""
    drawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=image.dtype)
    image.add_(drawn.to(image.device), alpha=std)


class RandomNoise(BatchTransform):
    """Gaussian noise with a standard deviation drawn from ``std`` (in the preprocessed image's units)."""

    def __init__(self, prob: float, std: Sequence[float]) -> None:
        self.prob = checked_probability("prob", prob)
        self.std = checked_range("std", std, least=0)

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Add noise to one sample; see :class:`BatchTransform`."""
        if rng.random() < self.prob:
            std = float(rng.uniform(*self.std))
            add_noise(image, std, int(rng.integers(1 << 62)))
