"""Random gamma correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability, checked_range, factor

TINY = 1e-7  # a smaller range or spread of values is that of a constant image


def correct_gamma(channel: Tensor, gamma: float, *, invert: bool, keep_statistics: bool) -> None:
    """Raise the values, brought to 0..1 by their range, to the power ``gamma`` in place, and bring them back.

    ``invert``: the image is negated before and after. ``keep_statistics``: back to its mean and standard deviation
    rather than to its range.
    """
    mean = channel.mean()
    channel.sub_(mean)
    spread = torch.linalg.vector_norm(channel)
    low, high = channel.aminmax()
    reach = (high - low).clamp_min(TINY)
    start, sign = (high, -1.0) if invert else (low, 1.0)
    channel.sub_(start).mul_(sign / reach)
    channel.clamp_min_(0).log_().mul_(gamma).exp_()  # a power, at half the price of pow
    if keep_statistics:
        channel.sub_(channel.mean())
        channel.mul_(sign * spread / torch.linalg.vector_norm(channel).clamp_min(TINY)).add_(mean)
    else:
        channel.mul_(sign * reach).add_(start + mean)


class RandomGamma(BatchTransform):
    """Gamma correction of each channel by its own exponent from ``gamma``, as often below 1 as above.

    ``invert`` and ``keep_statistics``: see :func:`correct_gamma`.
    """

    def __init__(self, prob: float, gamma: Sequence[float], invert: bool = False, keep_statistics: bool = True) -> None:
        self.prob = checked_probability("prob", prob)
        self.gamma = checked_range("gamma", gamma, least=0.01)
        self.invert = invert
        self.keep_statistics = keep_statistics

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Correct the gamma of one sample; see :class:`BatchTransform`."""
        if rng.random() < self.prob:
            for channel in image:
                correct_gamma(
                    channel, factor(rng, self.gamma), invert=self.invert, keep_statistics=self.keep_statistics
                )
