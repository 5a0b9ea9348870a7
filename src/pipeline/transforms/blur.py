"""Random Gaussian blur."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability, checked_range
from pipeline.transforms.separable import apply_along_axes, gaussian_weights


def blur(image: Tensor, sigma: Sequence[float], truncate: float) -> Tensor:
    """``image`` (C, *spatial) convolved with a Gaussian of ``sigma`` voxels per axis, cut at ``truncate`` sigmas.

    Mirrored at the border voxels: ``scipy.ndimage.gaussian_filter(mode="mirror")``.
    """
    matrices = [
        gaussian_weights(size, width, truncate) if width > 0 else None
        for size, width in zip(image.shape[1:], sigma, strict=True)
    ]
    return apply_along_axes(image, matrices)


class RandomBlur(BatchTransform):
    """Gaussian blur of each channel with probability ``channel_prob``; ``sigma``: voxels, drawn for every axis."""

    def __init__(self, prob: float, sigma: Sequence[float], channel_prob: float = 1.0, truncate: float = 3.0) -> None:
        self.prob = checked_probability("prob", prob)
        self.channel_prob = checked_probability("channel_prob", channel_prob)
        self.sigma = checked_range("sigma", sigma, least=0)
        self.truncate = truncate

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Blur one sample; see :class:`BatchTransform`."""
        if rng.random() >= self.prob:
            return
        for channel in image:
            if rng.random() < self.channel_prob:
                sigma = rng.uniform(*self.sigma, size=channel.ndim).tolist()
                channel.copy_(blur(channel[None], sigma, self.truncate)[0])
