"""The order in which a plan has the axes of its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def axis_order(shape: Sequence[int], short: float) -> tuple[int, ...]:
    """The axes of volumes of ``shape`` voxels (the median), as convolutions are to have them.

    As they are, but from the shortest to the longest where the last has less than ``short`` of the voxels of the
    longest: on a CPU a convolution runs along the last axis. nnU-Net puts the coarsest axis first.
    """
    axes = range(len(shape))
    if shape[-1] >= short * max(shape):
        return tuple(axes)
    return tuple(sorted(axes, key=lambda axis: shape[axis]))


def in_order(values: Sequence[T], order: Sequence[int]) -> tuple[T, ...]:
    """One value per axis, in another order of the axes."""
    return tuple(values[axis] for axis in order)
