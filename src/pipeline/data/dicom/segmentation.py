"""DICOM SEG: frames of segments, put back on the grid of the series they refer to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.dicom.fault import DicomError
from pipeline.data.dicom.frames import frame_value
from pipeline.data.dicom.geometry import Grid
from pipeline.data.dicom.instance import quiet, segment_name
from pipeline.data.dicom.pixels import decode, read_dataset

FRACTION = 0.5  # of a voxel: from here on it belongs to the segment
KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
AGAIN = "write the segmentation again"


class Segmentation:
    """The segments of a SEG file. ``tolerance``: of a voxel, how far its grid may be from that of the series."""

    def __init__(self, path: Path, tolerance: float, max_voxels: int) -> None:
        self.path = path
        self.tolerance = tolerance
        self.notes: list[str] = []
        self.dataset = read_dataset(path)
        with quiet():
            try:
                self._read(max_voxels)
            except DicomError:
                raise
            except Exception as error:  # whatever a broken file makes the parser do
                raise DicomError(path, f"its segments cannot be read ({error})", AGAIN) from None

    def _read(self, max_voxels: int) -> None:
        dataset = self.dataset
        self.kind = str(dataset.get("SegmentationType", "")).strip()
        if self.kind not in KINDS:
            raise DicomError(self.path, f"SegmentationType is {self.kind!r}, not one of {', '.join(KINDS)}", AGAIN)
        self.frames = int(dataset.get("NumberOfFrames") or 1)
        voxels = int(dataset.Rows) * int(dataset.Columns) * self.frames
        if voxels > max_voxels:
            raise DicomError(self.path, f"too large: {voxels:,} voxels", f"the limit is {max_voxels:,} (max_voxels)")
        self.segments = [(int(segment.SegmentNumber), segment_name(segment)) for segment in dataset.SegmentSequence]
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
        groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
        if len(groups) != self.frames:
            said = f"NumberOfFrames is {self.frames}, functional groups are there for {len(groups)}"
            raise DicomError(self.path, said, AGAIN)
        self.placed = [(self._number(own, shared), _matrix(own, shared)) for own in groups]
        self.largest = int(dataset.get("MaximumFractionalValue") or 255)
        self.frame_of_reference = str(dataset.get("FrameOfReferenceUID", "")).strip(" \0")

    def _number(self, own: Any, shared: Any) -> int:
        """The segment that a frame belongs to; 0 where one frame holds all (label map)."""
        if self.kind == "LABELMAP":
            return 0
        found = frame_value(own, shared, "SegmentIdentificationSequence", "ReferencedSegmentNumber", 1)
        if found is None:
            raise DicomError(self.path, "a frame does not say which segment it belongs to", AGAIN)
        return int(found[0])

    @property
    def annotated(self) -> tuple[str, ...]:
        """Names of the segments."""
        return tuple(dict.fromkeys(name for _, name in self.segments))

    def masks(self, name: str, grid: Grid) -> Iterator[np.ndarray]:
        """The voxels of every segment of this name: bool (columns, rows, slices). Raises DicomError."""
        if self.frame_of_reference and grid.frame_of_reference not in ("", self.frame_of_reference):
            said = "lies in another frame of reference than the images it refers to"
            raise DicomError(self.path, said, "export the segmentation for these images, or leave it out")
        numbers = {number for number, segment in self.segments if segment == name}
        wanted = [
            frame for frame, (number, _) in enumerate(self.placed) if number in numbers or self.kind == "LABELMAP"
        ]
        mask = np.zeros(grid.shape, bool, order="F")
        for frame, pixels in decode(self.path, wanted, self.dataset):
            if self.kind == "BINARY":
                inside = pixels != 0
            elif self.kind == "FRACTIONAL":
                inside = pixels >= FRACTION * self.largest
            else:
                inside = np.isin(pixels, sorted(numbers))
            self._put(mask, inside, self.placed[frame][1], grid)
        yield mask

    def _put(self, mask: np.ndarray, inside: np.ndarray, matrix: np.ndarray, grid: Grid) -> None:
        """Set the voxels of ``mask`` under the pixels (rows, columns) of one frame."""
        to_index = np.linalg.inv(grid.lps) @ matrix  # columns: along a row, along a column, place of pixel (0, 0)
        whole = np.rint(to_index[:3])
        off = np.abs(to_index[:3] - whole)
        off[:, :2] *= max(inside.shape)  # how far the last pixel would be from a voxel's centre
        if off.max() > self.tolerance or (np.abs(whole[:, :2]).sum(axis=0) != 1).any():
            said = "its voxel grid is not that of the series it refers to"
            raise DicomError(self.path, said, "resample the segmentation to the grid of the images, or leave it out")
        rows, columns = np.nonzero(inside)
        if rows.size == 0:
            return
        pixels = np.stack([columns, rows, np.ones_like(rows)])
        index = (whole @ pixels).astype(np.int64)
        if (index < 0).any() or (index >= np.array(grid.shape)[:, None]).any():
            said = "it marks voxels that lie outside of the series it refers to"
            raise DicomError(self.path, said, "are slices missing, or does it belong to another series?")
        mask[tuple(index)] = True


def _matrix(own: Any, shared: Any) -> np.ndarray:
    """Pixel (column, row, 1) of a frame -> mm, LPS, homogeneous: (4, 3)."""
    position = frame_value(own, shared, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = frame_value(own, shared, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = frame_value(own, shared, "PixelMeasuresSequence", "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None:
        raise ValueError("a frame has no position, orientation or spacing")
    matrix = np.zeros((4, 3))
    matrix[:3, 0] = np.array(orientation[:3]) * spacing[1]
    matrix[:3, 1] = np.array(orientation[3:]) * spacing[0]
    matrix[:3, 2] = position
    matrix[3, 2] = 1
    return matrix
