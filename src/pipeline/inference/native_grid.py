"""Probabilities from the preprocessed grid back onto the voxel grid of the file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor

from pipeline.inference.decision import Decision

INSIDE = 0.5 + 1e-3  # voxels beyond the outermost centre that still belong to the grid


def to_native_grid(
    probabilities: Tensor,
    affine: NDArray[np.float64],
    native_affine: NDArray[np.float64],
    native_shape: Sequence[int],
    decision: Decision | None = None,
) -> NDArray[np.uint8]:
    """Class indices (*native_shape) of ``probabilities`` (K, *spatial): linear interpolation, then ``decision``.

    ``affine`` and ``native_affine``: (4, 4) voxel index to world, mm, of the two grids. Voxels outside of the
    preprocessed grid (cropped away) are background. Where the grids differ by flips, permutations, scaling and shifts
    only, which is what orientation, spacing, crop, pad and resize do, the interpolation is separable and fast.
    """
    decision = decision or Decision()
    dims = len(native_shape)
    matrix = np.linalg.inv(affine) @ native_affine  # native voxel index -> preprocessed voxel index
    linear, shift = matrix[:dims, :dims], matrix[:dims, 3]
    size = np.abs(linear).max()
    along = np.abs(linear) > 1e-6 * size
    if (along.sum(axis=0) == 1).all() and (along.sum(axis=1) == 1).all():
        return _separable(probabilities, linear, shift, native_shape, decision)
    return _general(probabilities, linear, shift, native_shape, decision)


def _separable(
    probabilities: Tensor,
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    native_shape: Sequence[int],
    decision: Decision,
) -> NDArray[np.uint8]:
    source_axes = [int(np.argmax(np.abs(linear[:, axis]))) for axis in range(len(native_shape))]
    values = probabilities.permute(0, *(axis + 1 for axis in source_axes))
    inside = torch.ones(tuple(native_shape), dtype=torch.bool, device=values.device)
    for axis, (source, extent) in enumerate(zip(source_axes, native_shape, strict=True)):
        old = probabilities.shape[source + 1]
        place = linear[source, axis] * np.arange(extent) + shift[source]
        within = torch.from_numpy((place >= -INSIDE) & (place <= old - 1 + INSIDE)).to(values.device)
        shape = [1] * len(native_shape)
        shape[axis] = extent
        inside &= within.view(shape)
        place = np.clip(place, 0, old - 1)
        low = np.minimum(np.floor(place + 1e-6).astype(np.int64), old - 1)
        weight = np.clip(place - low, 0, 1)
        if np.abs(weight).max() < 1e-4 and extent == old and (low == np.arange(old)).all():
            continue
        lower = values.index_select(axis + 1, torch.from_numpy(low).to(values.device))
        if np.abs(weight).max() < 1e-4:
            values = lower
            continue
        high = torch.from_numpy(np.minimum(low + 1, old - 1)).to(values.device)
        upper = values.index_select(axis + 1, high)
        weights = torch.from_numpy(weight.astype(np.float32)).to(values.device).view([1, *shape])
        values = torch.lerp(lower, upper, weights)
    indices = decision.indices(values)
    indices[~inside] = 0
    return indices.cpu().numpy()


def _general(
    probabilities: Tensor,
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    native_shape: Sequence[int],
    decision: Decision,
) -> NDArray[np.uint8]:
    best = np.zeros(tuple(native_shape), dtype=np.uint8)
    highest = np.full(tuple(native_shape), 1e-6, dtype=np.float32)
    for index, values in enumerate(probabilities.float().cpu().numpy()):
        resampled = affine_transform(
            values, linear, shift, tuple(native_shape), order=1, mode="grid-constant", cval=0.0
        )
        if decision.painted is not None:
            best[resampled > decision.threshold] = decision.painted[index]
            continue
        better = resampled > highest
        best[better], highest[better] = index, resampled[better]
    return best
