"""Random contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability, checked_range, factor


def change_contrast(channel: Tensor, strength: float) -> None:
    """Multiply the distance from the mean by ``strength`` in place, cut to the range of values that was there."""
    low, high = channel.aminmax()
    mean = channel.mean()
    channel.sub_(mean).mul_(strength).add_(mean).clamp_(low, high)


class RandomContrast(BatchTransform):
    """Changes the contrast of each channel by its own factor from ``factors``, as often below 1 as above.

    Mean and range of the values are kept, the mean but for what is cut.
    """

    def __init__(self, prob: float, factors: Sequence[float]) -> None:
        self.prob = checked_probability("prob", prob)
        self.factors = checked_range("factors", factors, least=0)

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Change the contrast of one sample; see :class:`BatchTransform`."""
        if rng.random() < self.prob:
            for channel in image:
                change_contrast(channel, factor(rng, self.factors))
