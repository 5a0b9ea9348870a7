"""Random rotation, scaling and shift, one interpolation for image and label."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import cos, pi, sin
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor
from torch.nn import functional

NEAREST, BILINEAR = "nearest", "bilinear"


class RandomAffined(RandomizableTransform, MapTransform):
    """With probability ``prob``: rotate, scale and shift about the centre of the patch, on plain tensors.

    ``rotation``: largest angle about each axis in degrees (3D: three; 2D: one), drawn uniformly. ``scale``: lowest
    and highest zoom, one draw for all axes. ``shift``: largest shift as a fraction of the size, per axis.
    ``spacing``: voxel size in mm; angles are angles in the patient, also where voxels are not cubes. ``mode``: per
    key, bilinear or nearest. Beyond the border the nearest voxel is repeated (``padding`` border) or zero (zeros).

    Same deformation as MONAI's RandAffined on cubic voxels; grid and interpolation are computed once per patch, several
    times faster. Keys that are absent are skipped. Tensors are (C, *spatial).
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float,
        rotation: Sequence[float],
        scale: Sequence[float],
        shift: Sequence[float] | float = 0.0,
        spacing: Sequence[float] | None = None,
        mode: Sequence[str] = (BILINEAR, NEAREST),
        padding: str = "border",
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys=True)
        RandomizableTransform.__init__(self, prob)
        if len(mode) != len(self.keys) or any(m not in (BILINEAR, NEAREST) for m in mode):
            raise ValueError(f"mode {list(mode)} needs {BILINEAR} or {NEAREST} for each of {list(self.keys)}")
        if padding not in ("border", "zeros"):
            raise ValueError(f"padding {padding} is neither border nor zeros")
        self.rotation = tuple(rotation)
        self.scale = (float(scale[0]), float(scale[1]))
        self.shift = shift
        self.spacing = None if spacing is None else tuple(spacing)
        self.mode = tuple(mode)
        self.padding = padding

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Deform the tensors of the keys, all by the same draw."""
        result = dict(data)
        self.randomize(None)
        present = [(key, mode) for key, mode in zip(self.keys, self.mode, strict=True) if key in result]
        if not self._do_transform or not present:
            return result
        size = tuple(result[present[0][0]].shape[1:])
        theta = torch.from_numpy(self._matrix(size))[None]
        grid = functional.affine_grid(theta, [1, 1, *size], align_corners=False)
        for key, mode in present:
            tensor: Tensor = result[key]
            moved = functional.grid_sample(
                tensor[None].float(), grid, mode=mode, padding_mode=self.padding, align_corners=False
            )[0]
            result[key] = moved.to(tensor.dtype)
        return result

    def _matrix(self, size: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(dims, dims + 1) in the normalised, reversed coordinates of ``affine_grid``: output place -> input place."""
        dims = len(size)
        angles = [self.R.uniform(-limit, limit) * pi / 180 for limit in self.rotation[: 3 if dims == 3 else 1]]
        zoom = self.R.uniform(*self.scale)
        limits = [self.shift] * dims if isinstance(self.shift, int | float) else list(self.shift)[:dims]
        shift = np.array([self.R.uniform(-limit, limit) * 2 for limit in limits])
        turn = _rotation(angles, dims)
        extent = np.array(size) * np.array((self.spacing or (1.0,) * dims)[:dims])  # mm
        linear = (turn / zoom) * extent[None, :] / extent[:, None]
        matrix = np.concatenate([linear, shift[:, None]], axis=1)
        return np.ascontiguousarray(matrix[::-1, [*reversed(range(dims)), dims]]).astype(np.float32)


def _rotation(angles: Sequence[float], dims: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rotation matrix: about each of three axes in turn, or by one angle in the plane."""
    planes = [(1, 2), (0, 2), (0, 1)] if dims == 3 else [(0, 1)]
    result = np.eye(dims)
    for angle, (i, j) in zip(angles, planes, strict=False):
        step = np.eye(dims)
        step[i, i] = step[j, j] = cos(angle)
        step[i, j], step[j, i] = -sin(angle), sin(angle)
        result = result @ step
    return result
