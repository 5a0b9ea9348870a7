"""Random rotation and zoom of image and label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.transforms.affine import BORDER, ZEROS, affine_linear, affine_nearest
from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability, checked_range
from pipeline.transforms.matrices import Matrix, affine_matrix, slice_axis


class RandomSpatial(BatchTransform):
    """Rotation and zoom about the centre of the patch, each with its own probability, one interpolation for both.

    ``rotation``: largest angle in degrees about each axis in 3D. ``plane_rotation``: the same in 2D; and in 3D where
    voxels are over ``anisotropy`` times as long across the slices as within them, which are then rotated and zoomed
    in their plane only. ``sides`` (``${derived.sides}``): where classes are pairs of left and right, an angle in a
    plane that holds the axis from left to right is at most ``rotation`` too: half a turn and a mirroring along the
    plane's other axis would make a left lung look like a right one. ``scale``: lowest and highest zoom, one draw for
    all axes. ``spacing``: mm; angles are angles in the patient. Beyond the border the nearest voxel is repeated
    (``padding`` border) or zero (zeros). The image is interpolated linearly, the label by nearest neighbour.
    Source: Isensee et al., Nature Methods 2021.
    """

    def __init__(
        self,
        rotation_prob: float,
        rotation: Sequence[float],
        plane_rotation: float,
        scale_prob: float,
        scale: Sequence[float],
        spacing: Sequence[float] | None = None,
        anisotropy: float = 3.0,
        padding: str = BORDER,
        sides: Mapping[str, Any] | None = None,
    ) -> None:
        if len(rotation) != 3:
            raise ValueError(f"rotation {list(rotation)} needs three angles, one for each axis")
        if padding not in (BORDER, ZEROS):
            raise ValueError(f"padding {padding} is neither {BORDER} nor {ZEROS}")
        self.rotation_prob = checked_probability("rotation_prob", rotation_prob)
        self.scale_prob = checked_probability("scale_prob", scale_prob)
        self.rotation = tuple(float(angle) for angle in rotation)
        self.plane_rotation = float(plane_rotation)
        self.scale = checked_range("scale", scale, least=0.01)
        self.spacing = None if spacing is None else tuple(spacing)
        self.anisotropy = anisotropy
        self.padding = padding
        self.left_right = frozenset(sides["axes"]) if sides is not None and sides["paired"] else frozenset()

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Rotate and zoom one sample; see :class:`BatchTransform`."""
        matrix = self.draw(tuple(image.shape[1:]), rng)
        if matrix is not None:
            image.copy_(affine_linear(image, matrix, self.padding))
            if label is not None:
                label.copy_(affine_nearest(label, matrix, self.padding))

    def draw(self, size: tuple[int, ...], rng: np.random.Generator) -> Matrix | None:
        """Output voxel index -> input voxel index, None where nothing is to be done."""
        dims = len(size)
        rotates, zooms = rng.random(2) < (self.rotation_prob, self.scale_prob)
        turn, zoom = rng.uniform(-1, 1, size=3), rng.uniform(*self.scale)
        if not rotates and not zooms:
            return None
        across = slice_axis(self.spacing, dims, self.anisotropy)
        scale = np.full(dims, zoom if zooms else 1.0)
        if dims == 2:
            angles = turn[:1] * self._most_in_plane(0, {0, 1})
        elif across is None:
            angles = turn * self.rotation
        else:
            most = self._most_in_plane(across, {0, 1, 2} - {across})
            angles = np.where(np.arange(3) == across, turn * most, 0.0)
            scale[across] = 1.0
        return affine_matrix(
            size, rotation=angles.tolist() if rotates else (), zoom=scale.tolist(), spacing=self.spacing
        )

    def _most_in_plane(self, about: int, plane: set[int]) -> float:
        """Largest angle of a rotation in the ``plane`` of two axes; ``about``: which of the three angles bounds it."""
        if self.left_right & plane:
            return min(self.rotation[about], self.plane_rotation)
        return self.plane_rotation
