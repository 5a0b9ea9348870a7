"""Slices in space: their order along the normal, the regular grid they form, and why they do not form one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.dicom.fault import DicomError

SAME_MM = 1e-4  # slices nearer than this lie at the same place
UNIT = 1e-3  # how far direction cosines may be from orthonormal: rounding in the header
MISSING = 1.5  # times the usual distance: slices are missing between two
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
COPY_AGAIN = "copy or export the series again, whole"


@dataclass(frozen=True, slots=True)
class Slice:
    """One image plane: a file, or a frame (from 0) of one.

    ``position``: mm, LPS, centre of the first pixel; ``orientation``: direction cosines of a row and of a column;
    ``spacing``: mm between rows and between columns.
    """

    path: Path
    frame: int
    uid: str
    rows: int
    columns: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float
    intercept: float


@dataclass(frozen=True)
class Grid:
    """Voxel grid of a series.

    ``shape``: columns, rows, slices. ``lps``: (4, 4) float64, voxel index -> mm, LPS (as in DICOM).
    """

    shape: tuple[int, int, int]
    lps: np.ndarray
    frame_of_reference: str = ""

    @property
    def affine(self) -> np.ndarray:
        """Voxel index -> mm, RAS+ (as in NIfTI)."""
        ras: np.ndarray = LPS_TO_RAS @ self.lps
        return ras + 0.0  # no negative zeros

    @property
    def step(self) -> float:
        """Distance of the slices in mm."""
        return float(np.linalg.norm(self.lps[:3, 2]))

    def index(self, points: np.ndarray) -> np.ndarray:
        """Continuous voxel indices (n, 3) of points (n, 3) in mm, LPS."""
        inverse = np.linalg.inv(self.lps)
        return points @ inverse[:3, :3].T + inverse[:3, 3]


def arrange(
    slices: Sequence[Slice], thickness: float | None, tolerance: float, frame_of_reference: str = ""
) -> tuple[list[Slice], Grid]:
    """Slices in the order of their positions along the normal, and their grid.

    ``thickness``: distance in mm that a single slice stands for. ``tolerance``: of a voxel, how far a slice may lie
    from its place. Raises DicomError: mixed orientations, shapes or spacings, the same place twice, gaps, irregular
    distances, and slices that are shifted against each other as in a tilted gantry.
    """
    first = slices[0]
    _require_alike(slices, tolerance)
    row, column = _directions(first)
    normal = np.cross(row, column)
    positions = np.array([s.position for s in slices])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    ordered = [slices[i] for i in order]
    positions, heights = positions[order], heights[order]
    step = _step(ordered, heights, thickness)
    size = np.array([first.spacing[1], first.spacing[0], step])
    _require_regular(ordered, positions, heights, np.stack([row, column, normal]), size, tolerance)
    lps = np.eye(4)
    lps[:3, :3] = np.stack([row, column, normal], axis=1) * size
    lps[:3, 3] = positions[0]
    return ordered, Grid((first.columns, first.rows, len(ordered)), lps, frame_of_reference)


def _directions(first: Slice) -> tuple[np.ndarray, np.ndarray]:
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > UNIT or abs(row @ column) > UNIT:
        said = f"ImageOrientationPatient {_shown(first.orientation)} is not two perpendicular directions of length 1"
        raise DicomError(first.path, said, COPY_AGAIN)
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _require_alike(slices: Sequence[Slice], tolerance: float) -> None:
    first = slices[0]
    if min(first.spacing) <= 0:
        raise DicomError(first.path, f"PixelSpacing is {_shown(first.spacing)}", COPY_AGAIN)
    pixels = max(first.rows, first.columns)
    mixed = "several acquisitions share one SeriesInstanceUID: separate them, or leave the odd images out"
    for other in slices:
        if (other.rows, other.columns) != (first.rows, first.columns):
            said = f"mixed shapes: {other.rows} x {other.columns} pixels, {first.path.name} has {first.rows} x "
            raise DicomError(other.path, said + str(first.columns), mixed)
        turn = max(abs(a - b) for a, b in zip(other.orientation, first.orientation, strict=True))
        if turn * pixels > tolerance:
            said = f"mixed orientations: {_shown(other.orientation)}, {first.path.name} has {_shown(first.orientation)}"
            raise DicomError(other.path, said, mixed)
        apart = max(abs(a - b) / b for a, b in zip(other.spacing, first.spacing, strict=True))
        if apart * pixels > tolerance:
            said = f"mixed pixel spacings: {_shown(other.spacing)} mm, {first.path.name} has {_shown(first.spacing)} mm"
            raise DicomError(other.path, said, mixed)


def _step(ordered: Sequence[Slice], heights: np.ndarray, thickness: float | None) -> float:
    """Distance of the slices in mm; raises DicomError where places are taken twice or slices are missing."""
    if len(ordered) == 1:
        if not thickness:
            said = "the series has one slice and neither SpacingBetweenSlices nor SliceThickness"
            raise DicomError(ordered[0].path, said, "its size along the normal is unknown: leave the series out")
        return thickness
    distances = np.diff(heights)
    if (distances <= SAME_MM).any():
        raise _same_place(ordered, distances)
    usual = float(np.median(distances))
    gaps = np.flatnonzero(distances > MISSING * usual)
    if gaps.size:
        missing = int(sum(round(float(distances[at]) / usual) - 1 for at in gaps))
        at = int(gaps[0])
        said = (
            f"{missing} {'slice is' if missing == 1 else 'slices are'} missing: a gap of {distances[at]:.4g} mm "
            f"between {ordered[at].path.name} and {ordered[at + 1].path.name}, where slices are {usual:.4g} mm apart"
        )
        raise DicomError(ordered[at].path, said, COPY_AGAIN)
    return float(heights[-1] - heights[0]) / (len(ordered) - 1)


def _same_place(ordered: Sequence[Slice], distances: np.ndarray) -> DicomError:
    twice = np.flatnonzero(distances <= SAME_MM)
    one, other = ordered[int(twice[0])], ordered[int(twice[0]) + 1]
    names = f"{one.path.name} and {other.path.name}"
    if one.path == other.path:
        names = f"frames {one.frame + 1} and {other.frame + 1}"
    if one.uid == other.uid and one.path != other.path:
        said, remedy = "the same image twice (duplicate SOPInstanceUID)", "remove one of each pair"
    else:
        said = "duplicate positions: several images at one place (time points, echoes, b-values or phases?)"
        remedy = "separate the volumes into series of their own, or remove the duplicates"
    return DicomError(one.path, f"{said}: {names}, {len(twice)} such in all", remedy)


def _require_regular(
    ordered: Sequence[Slice],
    positions: np.ndarray,
    heights: np.ndarray,
    axes: np.ndarray,
    size: np.ndarray,
    tolerance: float,
) -> None:
    off = (positions - positions[0]) @ axes.T / size
    off[:, 2] -= np.arange(len(ordered))
    worst = int(np.abs(off[:, 2]).argmax())
    if abs(off[worst, 2]) > tolerance:
        distances = np.diff(heights)
        said = f"irregular distances between slices, from {distances.min():.4g} to {distances.max():.4g} mm"
        raise DicomError(ordered[worst].path, said, "resample the series to a regular grid before the import")
    worst = int(np.abs(off[:, :2]).max(axis=1).argmax())
    if np.abs(off[worst, :2]).max() > tolerance:
        shift = float(np.linalg.norm(off[worst, :2] * size[:2]))
        rise = abs(float(heights[worst] - heights[0]))
        angle = f", as in a gantry tilted by {math.degrees(math.atan2(shift, rise)):.1f} degrees" if rise > 0 else ""
        said = f"slices do not lie behind each other: this one is shifted by {shift:.4g} mm{angle}"
        raise DicomError(ordered[worst].path, said, "resample the series to a regular grid before the import")


def _shown(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:.6g}" for number in numbers) + "]"
