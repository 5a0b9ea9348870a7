"""Resampling of an image or a label through an affine map of voxel indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.transforms.matrices import Matrix
from pipeline.transforms.separable import apply_along_axes, interpolation_weights

BORDER, ZEROS = "border", "zeros"
SLAB = 1 << 17  # voxels that are resampled at once, so that coordinates stay in the processor's cache
MOST_ROWS = 1 << 15  # float32 tells places in so many rows apart by 0.002 voxels


def affine_linear(image: Tensor, matrix: Matrix, padding: str = BORDER) -> Tensor:
    """``image`` (C, *spatial) float32 with its voxels taken from where ``matrix`` says, by linear interpolation.

    ``matrix``: (dims, dims + 1), output voxel index -> input voxel index. Beyond the border the nearest voxel is
    repeated (``border``) or zero (``zeros``). Same values as ``torch.nn.functional.grid_sample``, on the CPU to within
    0.002 voxels and several times faster: a zoom is done axis by axis, a rotation in a plane on all slices at once.
    """
    dims = len(matrix)
    linear = matrix[:, :dims]
    if np.array_equal(linear, np.diag(np.diag(linear))):
        return _axis_by_axis(image, matrix, padding)
    if dims == 2:
        return _plane(image, matrix, padding)
    still = _still_axis(matrix)
    if still is not None:
        return _slices(image, matrix, still, padding)
    depth, height = image.shape[1:3]
    if image.device.type == "cpu" and depth > 1 and (depth - 1) * height <= MOST_ROWS:
        return _volume_on_cpu(image.contiguous(), matrix, padding)
    return _volume(image, matrix, padding)


def affine_nearest(label: Tensor, matrix: Matrix, padding: str = BORDER) -> Tensor:
    """``label`` (C, *spatial) of any type with its voxels taken from where ``matrix`` says, by nearest neighbour.

    As :func:`affine_linear`; no value appears that was not there (but zero, with ``zeros``).
    """
    size = label.shape[1:]
    source, result = label.reshape(len(label), -1), torch.empty_like(label)
    for first, last in _slabs(size):
        index: Tensor | None = None
        inside: Tensor | None = None
        for place, extent in zip(_coordinates(matrix, size, first, last, label.device), size, strict=True):
            nearest = place.round().to(torch.int32)
            if padding == ZEROS:
                within = (nearest >= 0) & (nearest < extent)
                inside = within if inside is None else inside & within
            nearest.clamp_(0, extent - 1)
            index = nearest if index is None else index * extent + nearest
        assert index is not None
        slab = (last - first, *size[1:])
        for channel, values in enumerate(source):
            part = values.index_select(0, index.expand(slab).reshape(-1)).view(slab)
            result[channel, first:last] = part if inside is None else part * inside
    return result


def _axis_by_axis(image: Tensor, matrix: Matrix, padding: str) -> Tensor:
    weights = []
    for axis, size in enumerate(image.shape[1:]):
        factor, offset = matrix[axis, axis], matrix[axis, -1]
        same = factor == 1 and offset == 0
        places = factor * np.arange(size) + offset
        weights.append(None if same else interpolation_weights(places, size, zeros=padding == ZEROS))
    return apply_along_axes(image, weights)


def _still_axis(matrix: Matrix) -> int | None:
    """The axis along which nothing moves, None where there is none."""
    identity = np.eye(3, 4)
    for axis in range(3):
        if np.array_equal(matrix[axis], identity[axis]) and np.array_equal(matrix[:, axis], identity[:, axis]):
            return axis
    return None


def _slices(image: Tensor, matrix: Matrix, axis: int, padding: str) -> Tensor:
    """Every slice across ``axis`` by the same map of its plane."""
    plane = [other for other in range(3) if other != axis]
    stack = image.movedim(axis + 1, 1)
    moved = _plane(stack.reshape(-1, *stack.shape[2:]), matrix[np.ix_(plane, [*plane, 3])], padding)
    return moved.view(stack.shape).movedim(1, axis + 1).contiguous()


def _plane(image: Tensor, matrix: Matrix, padding: str) -> Tensor:
    size = image.shape[1:]
    grid = _grid(_coordinates(matrix, size, 0, size[0], image.device), size, size)
    return functional.grid_sample(image[None], grid[None], padding_mode=padding, align_corners=False)[0]


def _volume(image: Tensor, matrix: Matrix, padding: str) -> Tensor:
    size = image.shape[1:]
    grid = _grid(_coordinates(matrix, size, 0, size[0], image.device), size, size)
    return functional.grid_sample(image[None], grid[None], padding_mode=padding, align_corners=False)[0]


def _volume_on_cpu(image: Tensor, matrix: Matrix, padding: str) -> Tensor:
    """Trilinear as two bilinear samples, from the slices before and after each place, and a blend of the two.

    Torch's 2D sampling is vectorised, its 3D sampling is not. All slices form one tall picture; its second channel is
    the same picture, begun one slice later.
    """
    channels, depth, height, width = image.shape
    size, rows = (depth, height, width), (depth - 1) * height
    plane = height * width
    result = torch.empty_like(image)
    for first, last in _slabs(size):
        z, y, x = _coordinates(matrix, size, first, last, image.device)
        covered = _coverage((z, y, x), size) if padding == ZEROS else None
        z = z.clamp(0, depth - 1)
        slice_before = z.floor().clamp_(max=depth - 2)
        grid = _grid((y.clamp(0, height - 1) + slice_before * height, x), (rows, width), (last - first, height, width))
        for channel in range(channels):
            pair = image[channel].as_strided((1, 2, rows, width), (0, plane, width, 1))
            both = functional.grid_sample(
                pair.expand(last - first, -1, -1, -1), grid, padding_mode=BORDER, align_corners=False
            )
            part = torch.lerp(both[:, 0], both[:, 1], z - slice_before)
            result[channel, first:last] = part if covered is None else part.mul_(covered)
    return result


def _coverage(places: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """The part of each interpolation that falls inside: repeated border voxels times it are those padded by zeros."""
    parts = [(1 + p).clamp_(0, 1).mul_((n - p).clamp_(0, 1)) for p, n in zip(places, size, strict=True)]
    covered = parts[0]
    for part in parts[1:]:
        covered = covered * part
    return covered


def _slabs(size: Sequence[int]) -> list[tuple[int, int]]:
    step = max(1, SLAB // int(np.prod(size[1:])))
    return [(first, min(first + step, size[0])) for first in range(0, size[0], step)]


def _coordinates(matrix: Matrix, size: Sequence[int], first: int, last: int, device: torch.device) -> list[Tensor]:
    """Input voxel index per axis of the output voxels ``first`` to ``last`` of the first axis.

    Each broadcasts to the slab: it has one element along an axis that does not matter to it.
    """
    dims = len(size)
    axes = [torch.arange(first, last, dtype=torch.float32, device=device)]
    axes += [torch.arange(extent, dtype=torch.float32, device=device) for extent in size[1:]]
    axes = [axis.view(-1, *[1] * (dims - 1 - i)) for i, axis in enumerate(axes)]
    places = []
    for row in matrix.tolist():
        place = axes[-1] * row[-2] + row[-1] if row[-2] else axes[-1].new_full([1] * dims, row[-1])
        for axis, factor in reversed(list(zip(axes[:-1], row[:-2], strict=True))):
            place = axis * factor + place if factor else place
        places.append(place)
    return places


def _grid(places: Sequence[Tensor], size: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Indices of voxels of an image of ``size`` as ``grid_sample`` wants them, (*shape, dims).

    Last axis first, each from -1 to 1 between the outer faces.
    """
    grid = places[0].new_empty((*shape, len(size)))
    for channel, (place, extent) in enumerate(zip(reversed(places), reversed(size), strict=True)):
        grid[..., channel] = place * (2 / extent) + (1 / extent - 1)
    return grid
