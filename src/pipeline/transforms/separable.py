"""Linear maps along one axis after another: zoom, blur and lower resolution, each a small matrix per axis.

A matrix product costs a fraction of a general interpolation or convolution of the same volume, most of all since the
matrices are banded: only the block around the diagonal is multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Weights = NDArray[np.float32]
BLOCK = 32  # rows that are multiplied at once on the CPU


def apply_along_axes(image: Tensor, matrices: Sequence[Weights | None]) -> Tensor:
    """Multiply each spatial axis of ``image`` (C, *spatial) by its matrix (out, in); None leaves an axis as it is."""
    for axis, matrix in enumerate(matrices, start=1):
        if matrix is not None:
            image = _apply_along(image, axis, matrix)
    return image


def _apply_along(image: Tensor, axis: int, matrix: Weights) -> Tensor:
    shape = image.shape
    before, after = shape[:axis].numel(), shape[axis + 1 :].numel()
    rows = len(matrix)
    weights = torch.from_numpy(matrix).to(image.device)
    source = image.reshape(before, shape[axis], after)
    result = image.new_empty((before, rows, after))
    step = BLOCK if image.device.type == "cpu" else rows
    for first in range(0, rows, step):
        last = min(first + step, rows)
        used = np.flatnonzero(matrix[first:last].any(axis=0))
        low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        block = weights[first:last, low:high]
        if after == 1:
            result[:, first:last, 0] = source[:, low:high, 0] @ block.T
        elif before == 1:
            torch.mm(block, source[0, low:high], out=result[0, first:last])
        else:
            result[:, first:last] = block @ source[:, low:high]
    return result.view(*shape[:axis], rows, *shape[axis + 1 :])


def interpolation_weights(positions: NDArray[np.float64], size: int, *, zeros: bool = False) -> Weights:
    """Linear interpolation of ``size`` samples at ``positions`` (voxels): (positions, size).

    Beyond the border the nearest sample is repeated, or is zero.
    """
    place = positions if zeros else np.clip(positions, 0, size - 1)
    # a hat of half-width one voxel around each position
    hat = 1 - np.abs(place[:, None] - np.arange(size)[None, :])
    weights: Weights = np.maximum(hat, 0).astype(np.float32)
    return weights


def gaussian_weights(size: int, sigma: float, truncate: float) -> Weights:
    """Convolution with a Gaussian of ``sigma`` voxels, cut at ``truncate`` sigmas, mirrored at the border voxels.

    (size, size); the same as ``scipy.ndimage.gaussian_filter1d(mode="mirror")``.
    """
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    period = max(2 * (size - 1), 1)
    places = np.abs(np.arange(size)[:, None] + offsets[None, :]) % period
    places = np.minimum(places, period - places) if size > 1 else np.zeros_like(places)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], places), kernel[None, :])
    return matrix.astype(np.float32)


def low_resolution_weights(size: int, scale: float) -> Weights:
    """Down to ``scale`` times the samples by nearest neighbour and back by linear interpolation: (size, size)."""
    fewer = max(1, round(size * scale))
    kept = np.minimum(np.floor((np.arange(fewer) + 0.5) * size / fewer).astype(np.int64), size - 1)
    up = interpolation_weights((np.arange(size) + 0.5) * fewer / size - 0.5, fewer)
    matrix = np.zeros((size, size), np.float32)
    matrix[:, kept] = up
    return matrix
