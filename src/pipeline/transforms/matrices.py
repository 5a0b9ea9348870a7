"""Matrices of the affine maps between voxel indices."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def affine_matrix(
    size: Sequence[int],
    *,
    rotation: Sequence[float] = (),
    zoom: float | Sequence[float] = 1.0,
    shift: Sequence[float] | None = None,
    spacing: Sequence[float] | None = None,
) -> Matrix:
    """Where each voxel of a rotated, zoomed and shifted image of ``size`` voxels comes from.

    (dims, dims + 1): output voxel index -> input voxel index, about the centre. ``rotation``: degrees about each of
    three axes in turn, or one angle in the plane. ``zoom``: above 1 things grow; one number, or one per axis.
    ``shift``: of the place that is read, as a fraction of the size, per axis. ``spacing``: mm; angles are angles in the
    patient, also where voxels are not cubes.
    """
    dims = len(size)
    extent = np.array(size, dtype=np.float64)
    voxel = np.ones(dims) if spacing is None else np.array(spacing, dtype=np.float64)[:dims]
    turn = rotation_matrix(rotation, dims) / np.broadcast_to(np.asarray(zoom, dtype=np.float64), (dims,))[:, None]
    linear = turn * voxel[None, :] / voxel[:, None]
    centre = (extent - 1) / 2
    moved = np.zeros(dims) if shift is None else np.array(shift, dtype=np.float64) * extent
    return np.concatenate([linear, (centre - linear @ centre + moved)[:, None]], axis=1)


def rotation_matrix(angles: Sequence[float], dims: int) -> Matrix:
    """Rotation by degrees about each of three axes in turn, or by one angle in the plane; no angles: none."""
    planes = [(1, 2), (0, 2), (0, 1)] if dims == 3 else [(0, 1)]
    result = np.eye(dims)
    for angle, (i, j) in zip(angles, planes, strict=False):
        step = np.eye(dims)
        step[i, i] = step[j, j] = cos(radians(angle))
        step[i, j], step[j, i] = -sin(radians(angle)), sin(radians(angle))
        result = result @ step
    return result


def slice_axis(spacing: Sequence[float] | None, dims: int, anisotropy: float) -> int | None:
    """The axis across thick slices: a voxel over ``anisotropy`` times as long there as along any other axis.

    None in 2D, where spacing is unknown and where voxels are near enough to cubes.
    """
    if spacing is None or dims != 3:
        return None
    order = np.argsort(spacing)
    return int(order[2]) if spacing[order[2]] > anisotropy * spacing[order[1]] else None
