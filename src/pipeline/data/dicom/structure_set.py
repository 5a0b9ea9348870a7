"""RTSTRUCT: contours in patient space, rasterised on the grid of the series they were drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.dicom.fault import DicomError
from pipeline.data.dicom.geometry import Grid
from pipeline.data.dicom.instance import quiet
from pipeline.data.dicom.pixels import read_dataset
from pipeline.data.dicom.rasterise import fill

if TYPE_CHECKING:
    from pydicom import Dataset

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")
CONTOUR_DATA = 0x30060050
NO_POINT = 1e7  # mm; no patient is larger


class StructureSet:
    """The ROIs of an RTSTRUCT file. ``tolerance``: of a slice, how far the points of a contour may leave its plane."""

    def __init__(self, path: Path, tolerance: float) -> None:
        self.path = path
        self.tolerance = tolerance
        self.notes: list[str] = []
        dataset = read_dataset(path)
        with quiet():
            try:
                self.frames = _frames_of_reference(dataset)
                self.rois = _rois(dataset)
                if "ROIContourSequence" not in dataset:
                    raise DicomError(path, "has ROIs and no ROIContourSequence: it is truncated", "export it again")
                self.contours = {
                    int(item.ReferencedROINumber): list(item.get("ContourSequence") or ())
                    for item in dataset.get("ROIContourSequence") or ()
                }
            except DicomError:
                raise
            except Exception as error:  # whatever a broken file makes the parser do
                raise DicomError(path, f"its ROIs cannot be read ({error})", "export it again") from None

    @property
    def annotated(self) -> tuple[str, ...]:
        """Names of the ROIs that have contours."""
        return tuple(dict.fromkeys(name for number, name in self.rois if self.contours.get(number)))

    def masks(self, name: str, grid: Grid) -> Iterator[np.ndarray]:
        """The voxels of every ROI of this name: bool (columns, rows, slices). Raises DicomError."""
        for number, roi in self.rois:
            if roi == name and self.contours.get(number):
                self._require_same_space(number, name, grid)
                yield self._mask(name, self.contours[number], grid)

    def _require_same_space(self, number: int, name: str, grid: Grid) -> None:
        frame = self.frames.get(number, "")
        if frame and grid.frame_of_reference and frame != grid.frame_of_reference:
            said = f"ROI {name} lies in another frame of reference than the images it refers to"
            raise DicomError(self.path, said, "export the structure set for these images, or leave it out")

    def _mask(self, name: str, contours: list[Dataset], grid: Grid) -> np.ndarray:
        planes: list[tuple[float, np.ndarray]] = []
        for contour in contours:
            kind = str(contour.get("ContourGeometricType", "")).strip()
            if kind not in CLOSED:
                self._note(f"ROI {name}: {kind or 'untyped'} contours enclose nothing and are left out")
                continue
            points = self._points(name, contour)
            if len(points) < 3:
                self._note(f"ROI {name}: contours of fewer than three points are left out")
                continue
            planes.append(self._plane(name, grid.index(points), grid))
        mask = np.zeros(grid.shape, bool, order="F")
        for place, polygons in self._by_slice(name, planes, grid.shape[2]).items():
            mask[:, :, place] = fill(polygons, grid.shape[:2])
        return mask

    def _points(self, name: str, contour: Dataset) -> np.ndarray:
        """Points (n, 3) of a contour in mm, LPS."""
        item = contour.get_item(CONTOUR_DATA) if CONTOUR_DATA in contour else None
        value = None if item is None else item.value
        try:
            # the raw text: a decimal object for each of a million numbers would take seconds
            texts = value.decode("ascii").rstrip(" \0").split("\\") if isinstance(value, bytes) else (value or [])
            numbers = np.array([float(text) for text in texts], float)
        except (ValueError, TypeError):
            numbers = np.array([np.nan])
        if numbers.size % 3 or not (np.abs(numbers) < NO_POINT).all():
            raise DicomError(self.path, f"ROI {name} has a contour whose points are no coordinates", "export it again")
        return numbers.reshape(-1, 3)

    def _plane(self, name: str, points: np.ndarray, grid: Grid) -> tuple[float, np.ndarray]:
        """Place of a contour along the normal, in slices, and its polygon."""
        heights = points[:, 2]
        place = float(heights.mean())
        if np.abs(heights - place).max() > max(self.tolerance, 0.5 if grid.shape[2] == 1 else 0.0):
            said = f"ROI {name} has a contour that is not parallel to the slices of the series"
            raise DicomError(self.path, said, "export the contours on the planes of the images")
        if not -0.5 <= place <= grid.shape[2] - 0.5:
            beyond = -place if place < 0 else place - (grid.shape[2] - 1)
            said = f"ROI {name} has a contour {beyond:.3g} slices away from the nearest slice of the series"
            raise DicomError(self.path, said, "are slices missing, or does it belong to another series?")
        return place, points[:, :2]

    def _by_slice(self, name: str, planes: list[tuple[float, np.ndarray]], count: int) -> dict[int, list[np.ndarray]]:
        """Polygons of each slice: those of one plane; where several planes have the same nearest slice, the nearest."""
        slices: dict[int, list[np.ndarray]] = {}
        taken: dict[int, float] = {}
        for height, polygon in sorted(planes, key=lambda plane: (abs(plane[0] - round(plane[0])), plane[0])):
            place = min(max(0, round(height)), count - 1)
            if place not in taken:
                taken[place] = height
                slices[place] = []
            if abs(height - taken[place]) <= self.tolerance:
                slices[place].append(polygon)
            else:
                self._note(f"ROI {name}: contours lie closer than the slices; of each slice the nearest are used")
        places = np.sort(list(slices))
        if len(places) > 2 and np.diff(places).min() > 1:
            apart = int(np.median(np.diff(places)))
            self._note(f"ROI {name}: contours on one slice in {apart} only; the slices between stay empty")
        return slices

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _rois(dataset: Dataset) -> list[tuple[int, str]]:
    return [
        (int(roi.ROINumber), str(roi.get("ROIName", "")).strip())
        for roi in dataset.get("StructureSetROISequence") or ()
    ]


def _frames_of_reference(dataset: Dataset) -> dict[int, str]:
    return {
        int(roi.ROINumber): str(roi.get("ReferencedFrameOfReferenceUID", "")).strip(" \0")
        for roi in dataset.get("StructureSetROISequence") or ()
    }
