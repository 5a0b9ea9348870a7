"""Random mirroring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability


def mirror(tensor: Tensor, axes: Sequence[int]) -> None:
    """Reverse the spatial ``axes`` (from 0) of ``tensor`` (C, *spatial) in place."""
    if axes:
        tensor.copy_(tensor.flip([axis + 1 for axis in axes]))


class RandomMirror(BatchTransform):
    """Mirrors each of the spatial ``axes`` with probability ``prob``; null: all axes there are."""

    def __init__(self, prob: float, axes: Sequence[int] | None = None) -> None:
        self.prob = checked_probability("prob", prob)
        if axes is not None and not set(axes) <= {0, 1, 2}:
            raise ValueError(f"axes {list(axes)} must be of 0, 1 and 2")
        self.axes = None if axes is None else tuple(axes)

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Mirror one sample; see :class:`BatchTransform`. An axis that the image has not is left out."""
        drawn = rng.random(3) < self.prob
        dims = image.ndim - 1
        axes = [axis for axis in range(dims) if drawn[axis] and (self.axes is None or axis in self.axes)]
        mirror(image, axes)
        if label is not None:
            mirror(label, axes)
