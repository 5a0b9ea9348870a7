"""Random loss of resolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability, checked_range
from pipeline.transforms.matrices import slice_axis
from pipeline.transforms.separable import apply_along_axes, low_resolution_weights


def lower_resolution(image: Tensor, scale: Sequence[float]) -> Tensor:
    """``image`` (C, *spatial) on a grid of ``scale`` times as many voxels per axis, and back on its own.

    Down by nearest neighbour, up linearly: ``torch.nn.functional.interpolate`` with nearest-exact, then trilinear.
    """
    matrices = [
        low_resolution_weights(size, part) if part < 1 else None
        for size, part in zip(image.shape[1:], scale, strict=True)
    ]
    return apply_along_axes(image, matrices)


class RandomLowResolution(BatchTransform):
    """Lower resolution of each channel with probability ``channel_prob``.

    ``scale``: lowest and highest part of the voxels per axis that remain, one draw for all axes. Where voxels are over
    ``anisotropy`` times as long across the slices as within them (``spacing``, mm), all slices remain.
    """

    def __init__(
        self,
        prob: float,
        scale: Sequence[float],
        channel_prob: float = 1.0,
        spacing: Sequence[float] | None = None,
        anisotropy: float = 3.0,
    ) -> None:
        self.prob = checked_probability("prob", prob)
        self.channel_prob = checked_probability("channel_prob", channel_prob)
        self.scale = checked_range("scale", scale, least=0.01)
        if self.scale[1] > 1:
            raise ValueError(f"scale {list(scale)} must not be above 1")
        self.spacing = None if spacing is None else tuple(spacing)
        self.anisotropy = anisotropy

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Lower the resolution of one sample; see :class:`BatchTransform`."""
        if rng.random() >= self.prob:
            return
        across = slice_axis(self.spacing, image.ndim - 1, self.anisotropy)
        for channel in image:
            if rng.random() < self.channel_prob:
                part = float(rng.uniform(*self.scale))
                scale = [1.0 if axis == across else part for axis in range(channel.ndim)]
                channel.copy_(lower_resolution(channel[None], scale)[0])
