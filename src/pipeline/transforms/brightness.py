"""Random multiplication of the intensities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability, checked_range, factor


class RandomBrightness(BatchTransform):
    """Multiplies each channel by its own factor from ``factors``, as often below 1 as above."""

    def __init__(self, prob: float, factors: Sequence[float]) -> None:
        self.prob = checked_probability("prob", prob)
        self.factors = checked_range("factors", factors, least=0)

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Brighten or darken one sample; see :class:`BatchTransform`."""
        if rng.random() < self.prob:
            for channel in image:
                channel.mul_(factor(rng, self.factors))
