"""Voxel grids: where the axes of an image lie in the body, and whether two images share their voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import nibabel as nib
import numpy as np

from pipeline.data.case import FileSource, Source
from pipeline.data.image_io import ITK, NIFTI, Image, suffix_of
from pipeline.data.image_io.image import spacing_of

SAME_MM = 1e-3  # rounding of an affine, not a shift

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class VoxelGrid:
    """``shape``: as stored. ``affine``: (4, 4), voxel index -> world, RAS+ in mm. ``in_mm``: voxels have a size."""

    shape: tuple[int, ...]
    affine: np.ndarray
    in_mm: bool

    @classmethod
    def of(cls, source: Source, image: Image) -> VoxelGrid:
        """The grid of an image; pictures and arrays know no millimetres unless their affine says so."""
        sized = isinstance(source, FileSource) and suffix_of(source.path) in (*NIFTI, *ITK)
        shape = tuple(int(size) for size in image.array.shape[1:])
        return cls(shape, image.affine, sized or not np.array_equal(image.affine, np.eye(4)))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each stored axis, mm, or 1 pixel."""
        return spacing_of(self.affine, len(self.shape)) if self.in_mm else (1.0,) * len(self.shape)

    @property
    def orientation(self) -> str:
        """Axis codes of a volume, such as LPS; empty for pictures and planes."""
        if not self.in_mm or len(self.shape) != 3:
            return ""
        return "".join(str(code) for code in nib.aff2axcodes(self.affine))

    def canonical(self, values: Sequence[Number]) -> tuple[Number, ...]:
        """One value per stored axis, in RAS order; as they are where there is no orientation."""
        if not self.orientation:
            return tuple(values)
        ordered = list(values)
        for stored, axis in enumerate(nib.io_orientation(self.affine)[:, 0].astype(int)):
            ordered[axis] = values[stored]
        return tuple(ordered)

    def same(self, other: VoxelGrid) -> bool:
        """Whether each voxel lies where the other's does, up to SAME_MM."""
        if self.shape != other.shape:
            return False
        reach = np.array([*(size - 1 for size in self.shape), *[0] * (3 - len(self.shape)), 1])
        return bool((np.abs(self.affine - other.affine)[:3] @ reach <= SAME_MM).all())

    def indices_of(self, voxels: np.ndarray, grid: VoxelGrid) -> np.ndarray:
        """Indices (m, dims) of the voxels here that lie nearest to ``voxels`` (n, dims) of another grid; m <= n."""
        placed = np.zeros((len(voxels), 4))
        placed[:, : voxels.shape[1]], placed[:, 3] = voxels, 1
        found = np.rint(placed @ (np.linalg.inv(self.affine) @ grid.affine).T)[:, : len(self.shape)].astype(np.int64)
        return np.asarray(found[((found >= 0) & (found < self.shape)).all(axis=1)])
