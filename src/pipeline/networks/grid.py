"""Moving voxels between space and channels, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def fold_grid(image: Tensor, factors: Sequence[int]) -> Tensor:
    """Move each cell of ``factors`` voxels into channels.

    Maps ``(B, C, *n)`` to ``(B, C * prod(factors), *ceil(n / factors))``. Sizes that do not
    divide are filled up with the last voxel.
    Source: Shi et al., CVPR 2016 (sub-pixel convolution, in the other direction).
    """
    if all(factor == 1 for factor in factors):
        return image
    excess = [-size % factor for size, factor in zip(image.shape[2:], factors, strict=True)]
    if any(excess):
        image = functional.pad(image, [side for end in reversed(excess) for side in (0, end)], mode="replicate")
    axes = range(len(factors))
    grid = [size // factor for size, factor in zip(image.shape[2:], factors, strict=True)]
    cells = image.reshape(*image.shape[:2], *(size for axis in axes for size in (grid[axis], factors[axis])))
    cells = cells.permute(0, 1, *(3 + 2 * axis for axis in axes), *(2 + 2 * axis for axis in axes))
    return cells.reshape(image.shape[0], -1, *grid)


def unfold_grid(features: Tensor, factors: Sequence[int]) -> Tensor:
    """Invert ``fold_grid``: ``(B, C * prod(factors), *n)`` to ``(B, C, *(n * factors))``."""
    if all(factor == 1 for factor in factors):
        return features
    axes, grid = len(factors), features.shape[2:]
    cells = features.reshape(features.shape[0], -1, *factors, *grid)
    cells = cells.permute(0, 1, *(axis for i in range(axes) for axis in (2 + axes + i, 2 + i)))
    return cells.reshape(*cells.shape[:2], *(size * factor for size, factor in zip(grid, factors, strict=True)))


def crop_to(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the far end of each spatial axis of ``tensor`` to ``size``."""
    for axis, count in enumerate(size, start=2):
        if tensor.shape[axis] != count:
            tensor = tensor.narrow(axis, 0, count)
    return tensor
