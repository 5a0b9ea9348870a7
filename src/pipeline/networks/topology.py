"""How deep a network pools each axis: nnU-Net's rule."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

SMALLEST_POOLED = 8  # voxels: an axis below this is not halved any more
SMALLEST_ALONE = 12  # voxels: the same, when only one axis is left to halve
ANISOTROPY = 2.0  # an axis whose spacing is this many times the finest one waits for the others

Steps = tuple[tuple[int, ...], ...]


def plan_strides(size: Sequence[int], spacing: Sequence[float] | None, max_stages: int) -> Steps:
    """Choose the strides of up to ``max_stages`` stages for an input of ``size`` voxels at ``spacing`` mm.

    The first entry is all ones (full resolution). From stage to stage an axis is halved while it has at least 8 voxels
    and its spacing is less than twice the finest of such axes; a last remaining one only from 12 voxels on. Without
    spacing the grid counts as isotropic. Raises ValueError when size and spacing differ in length.

    Source: Isensee et al., nnU-Net, Nature Methods 2021; ``get_pool_and_conv_props`` of nnU-Net v2.
    """
    voxels, mm = list(size), _millimetres(spacing, len(size))
    strides = [(1,) * len(voxels)]
    while len(strides) < max_stages:
        large = [axis for axis in range(len(voxels)) if voxels[axis] >= SMALLEST_POOLED]
        pooled = [axis for axis in large if mm[axis] < ANISOTROPY * min(mm[other] for other in large)]
        if not pooled or (len(pooled) == 1 and voxels[pooled[0]] < SMALLEST_ALONE):
            break
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(len(voxels))))
        voxels = [-(-count // step) for count, step in zip(voxels, strides[-1], strict=True)]
        mm = [value * step for value, step in zip(mm, strides[-1], strict=True)]
    return tuple(strides)


def plan_kernels(spacing: Sequence[float] | None, strides: Steps) -> Steps:
    """Choose the kernels of stages with these ``strides``, for an input at ``spacing`` mm.

    An axis is convolved (3, not 1) from the stage on where its spacing is less than twice the finest; the coarsest
    stage convolves all. Source: as ``plan_strides``.
    """
    mm = _millimetres(spacing, len(strides[0]))
    kernel = [1] * len(mm)
    kernels = []
    for stride in strides:
        mm = [value * step for value, step in zip(mm, stride, strict=True)]
        kernel = [3 if old == 3 or value < ANISOTROPY * min(mm) else 1 for old, value in zip(kernel, mm, strict=True)]
        kernels.append(tuple(kernel))
    return (*kernels[:-1], (3,) * len(mm)) if len(kernels) > 1 else tuple(kernels)


def without_full_resolution(strides: Steps) -> Steps:
    """Drop the first stage where it works at full resolution and another one follows."""
    return strides[1:] if len(strides) > 1 and prod(strides[0]) == 1 else strides


def per_axis(values: Sequence[int | Sequence[int]], spatial_dims: int) -> Steps:
    """Return one tuple a stage, from a list of numbers (for all axes) or of numbers an axis."""
    steps = tuple((value,) * spatial_dims if isinstance(value, int) else tuple(value) for value in values)
    if any(len(step) != spatial_dims for step in steps):
        raise ValueError(f"{list(values)} does not hold {spatial_dims} numbers a stage")
    return steps


def _millimetres(spacing: Sequence[float] | None, axes: int) -> list[float]:
    mm = [1.0] * axes if spacing is None else [float(value) for value in spacing]
    if len(mm) != axes:
        raise ValueError(f"spacing {mm} does not hold one number for each of {axes} axes")
    return mm
