"""One scan of one patient: where the patient lies, which grid the scanner reads, what it blurs and adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from pipeline.data.phantom.anatomy import Anatomy
from pipeline.data.phantom.chest import uniform
from pipeline.data.phantom.paint import Contrast, paint_patient
from pipeline.data.phantom.settings import PhantomSettings
from pipeline.data.phantom.shapes import Array, Canvas

TABLE_HU = (-250.0, -930.0)  # shell, foam


@dataclass(frozen=True)
class Grid:
    """Voxel grid in the world: ``affine`` (4, 4) takes voxel indices to RAS+ mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def centre(self) -> NDArray[np.float64]:
        """World position of the middle of the grid, mm."""
        middle: NDArray[np.float64] = self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]
        return middle


def draw_grid(rng: np.random.Generator, settings: PhantomSettings) -> Grid:
    """Draw spacing, field of view and orientation of a scan."""
    plane = round(uniform(rng, settings.spacing_mm), 3)
    spacing = np.array([plane, plane, round(uniform(rng, settings.slice_mm), 3)])
    extent = np.array([uniform(rng, b) for b in (settings.width_mm, settings.depth_mm, settings.height_mm)])
    code = settings.orientations[int(rng.integers(len(settings.orientations)))]
    shape = [0, 0, 0]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(code):
        world = "RAS".find(letter) if letter in "RAS" else "LPI".find(letter)
        affine[world, axis] = spacing[world] if letter in "RAS" else -spacing[world]
        shape[axis] = max(8, round(extent[world] / spacing[world]))
    table = np.round(rng.uniform((-15, -40, -900), (15, 40, 300)), 2)
    affine[:3, 3] = table - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid((shape[0], shape[1], shape[2]), affine)


def scan(
    rng: np.random.Generator, anatomy: Anatomy, settings: PhantomSettings, growth: float
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Scan a patient whose tumours are ``growth`` times their first size.

    Returns HU (i, j, k), labels (i, j, k) with 0 background, 1 lung, 2 tumour, and the affine (4, 4) to RAS+ mm.
    """
    grid = draw_grid(rng, settings)
    turn = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3) * settings.tilt_deg, degrees=True).as_matrix()
    chest = anatomy.chest
    # The lungs' middle lies in the middle of the field of view, but for the shift.
    middle = np.array([0.0, -0.1 * chest.half_depth, (chest.apex + chest.domes[0] - 1.6 * chest.drop) / 2])
    lying = grid.centre + rng.uniform(-1, 1, 3) * settings.shift_mm
    to_patient = np.eye(4)
    to_patient[:3, :3] = turn.T @ grid.affine[:3, :3]
    to_patient[:3, 3] = turn.T @ (grid.affine[:3, 3] - lying) + middle
    canvas = Canvas(grid.shape, to_patient, anatomy.bend)
    _paint_table(canvas, grid, float(lying[1]) - 1.27 * chest.half_depth - chest.fat, uniform(rng, (280, 420)))
    contrast = Contrast(uniform(rng, settings.blood_hu), uniform(rng, settings.lung_hu), growth)
    labels = paint_patient(canvas, anatomy, contrast)
    return _read_out(rng, canvas.hu, settings), labels, grid.affine


def _paint_table(canvas: Canvas, grid: Grid, height: float, curve: float) -> None:
    """Paint a curved table of thin shells and foam whose top is at world y = ``height`` mm."""
    steps = np.ogrid[tuple(slice(0, n) for n in grid.shape)]
    x, y = (
        sum(float(grid.affine[row, axis]) * steps[axis].astype(np.float32) for axis in range(3))
        + np.float32(grid.affine[row, 3])
        for row in range(2)
    )
    aside = x - float(grid.centre[0])
    depth = (height + aside**2 / (2 * curve)) - y
    slab = np.broadcast_to(np.maximum(np.abs(depth - 14) - 12, np.abs(aside) - 210), grid.shape)
    canvas.paint(canvas.cover(slab), TABLE_HU[0])
    canvas.paint(canvas.cover(slab + 2), TABLE_HU[1])


def _read_out(rng: np.random.Generator, hu: Array, settings: PhantomSettings) -> NDArray[np.int16]:
    """Blur by the point spread, add correlated noise and the scanner's offset, clip to what CT stores."""
    blurred = gaussian_filter(hu, uniform(rng, settings.blur_voxels))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    if settings.noise_correlation_voxels:
        noise = gaussian_filter(noise, settings.noise_correlation_voxels)
    noise *= uniform(rng, settings.noise_hu) / float(noise.std())
    blurred += noise + uniform(rng, settings.offset_hu)
    stored: NDArray[np.int16] = np.clip(np.rint(blurred), -1024, 3071).astype(np.int16)
    return stored
