"""One case measured: its grids, intensities and mask, from one read of its files."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.data.case import Case
from pipeline.data.fingerprint.grids import VoxelGrid
from pipeline.data.fingerprint.masks import Box, MaskMeasure, bounding_box, measure_mask
from pipeline.data.fingerprint.model import FingerprintSettings, Finite, Record
from pipeline.data.fingerprint.voxels import VoxelStatistics, voxel_statistics
from pipeline.data.image_io import read_image, read_mask
from pipeline.data.labels import IGNORED, Labels
from pipeline.errors import UserError
from pipeline.randomness import generator


class GridMeasure(Record):
    """One voxel grid, axes in RAS order (pictures: row, column); ``cropped``: shape of the box of what is not zero.

    ``orientation``: axis codes in the file, empty for pictures and planes.
    """

    shape: tuple[int, ...]
    spacing: tuple[Finite, ...]
    cropped: tuple[int, ...]
    orientation: str
    in_mm: bool

    @property
    def size(self) -> tuple[float, ...]:
        """Extent per axis, mm or pixels."""
        return tuple(count * length for count, length in zip(self.shape, self.spacing, strict=True))

    @property
    def cropped_size(self) -> tuple[float, ...]:
        """Extent of the box of what is not zero, mm or pixels."""
        return tuple(count * length for count, length in zip(self.cropped, self.spacing, strict=True))


class ChannelMeasure(Record):
    """Intensities of one channel; ``stored``: number type in the file."""

    modality: str
    stored: str
    image: VoxelStatistics
    foreground: VoxelStatistics | None


class CaseMeasure(Record):
    """All that a fingerprint needs to know of a case. ``grids``: by modality; ``channels``: by channel name."""

    grids: dict[str, GridMeasure]
    channels: dict[str, ChannelMeasure]
    mask: MaskMeasure | None


def measure_case(
    case: Case, labels: Labels | None, settings: FingerprintSettings, *, drawn: int, place: int = 0
) -> CaseMeasure:
    """Measure one case; one image at a time is in memory, besides the mask.

    ``labels`` None: the mask is not looked at. ``drawn``: voxels drawn per channel, and inside the mask. ``place``
    tells the draws of one case from those of another. Raises UserError.
    """
    foreground, measured = None, None
    if labels is not None and case.label is not None:
        mask = read_mask(case.label)
        try:
            indices = labels.to_index(mask.array)[0]
        except ValueError as error:
            raise UserError(f"{case.label.path}: {error}", "declare every value in data.labels") from None
        grid = VoxelGrid.of(case.label, mask)
        measured = measure_mask(indices, labels, float(np.prod(grid.spacing)), settings.connectivity)
        foreground = Foreground(indices, grid)
    found: dict[str, tuple[VoxelGrid, Box | None]] = {}
    channels: dict[str, ChannelMeasure] = {}
    number = 0
    for modality, source in case.images.items():
        image = read_image(source)
        grid = VoxelGrid.of(source, image)
        found[modality] = grid, bounding_box((image.array != 0).any(axis=0))
        for index, channel in enumerate(image.array):
            draw = generator(settings.seed, "fingerprint", place, number)
            number += 1
            whole = voxel_statistics(channel, drawn, draw)
            if whole is not None:
                inner = None if foreground is None else foreground.values(channel, grid, drawn, draw)
                channels[modality if len(image.array) == 1 else f"{modality}[{index}]"] = ChannelMeasure(
                    modality=modality,
                    stored=channel.dtype.name,
                    image=whole,
                    foreground=None if inner is None else voxel_statistics(inner, drawn, draw),
                )
    grids = {
        modality: GridMeasure(
            shape=grid.canonical(grid.shape),
            spacing=grid.canonical(grid.spacing),
            cropped=grid.canonical(_cropped(grid, found.values())),
            orientation=grid.orientation,
            in_mm=grid.in_mm,
        )
        for modality, (grid, _) in found.items()
    }
    return CaseMeasure(grids=grids, channels=channels, mask=measured)


class Foreground:
    """The foreground of a mask (class indices), found in images on whatever grid."""

    def __init__(self, indices: np.ndarray, grid: VoxelGrid) -> None:
        self.grid = grid
        inside = (indices > 0) & (indices < IGNORED)
        self.box = bounding_box(inside)
        self.inside = None if self.box is None else inside[self.box]

    def values(self, channel: np.ndarray, grid: VoxelGrid, drawn: int, draw: np.random.Generator) -> np.ndarray:
        """Voxels (n,) of a channel on ``grid`` inside the mask: all of them; where the grids differ a draw, nearest."""
        if self.box is None or self.inside is None:
            return np.empty(0, channel.dtype)
        if grid.same(self.grid):
            part, inside = channel[self.box], self.inside
            if channel.flags.f_contiguous:  # in the order of memory
                part, inside = part.T, inside.T
            return np.asarray(part[inside])
        voxels = np.argwhere(self.inside) + [extent.start for extent in self.box]
        if len(voxels) > drawn:
            voxels = voxels[draw.integers(0, len(voxels), drawn)]
        return np.asarray(channel[tuple(grid.indices_of(voxels, self.grid).T)])


def _cropped(grid: VoxelGrid, found: Iterable[tuple[VoxelGrid, Box | None]]) -> tuple[int, ...]:
    """Stored shape of the box around what is not zero in any image on this grid; the whole where all is zero."""
    boxes = [box for other, box in found if box is not None and grid.same(other)]
    if not boxes:
        return grid.shape
    return tuple(
        max(box[axis].stop for box in boxes) - min(box[axis].start for box in boxes) for axis in range(len(grid.shape))
    )
