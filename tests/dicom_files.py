"""Small DICOM series, structure sets and segmentations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

CT, MR, PET = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128")
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
CLASSES = {"CT": CT, "MR": MR, "PT": PET}
NAME, PATIENT, DATE = "Doe^Jane", "MRN-4711", "19991231"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ROWS, COLUMNS, SLICES = 6, 9, 5  # 54 pixels: frames of one bit per pixel do not end with a byte

Change = Callable[[int, Dataset], None]


def stored(number: int) -> np.ndarray:
    """Pixels (rows, columns) of a slice, different everywhere and in each slice."""
    return np.arange(ROWS * COLUMNS, dtype=np.int16).reshape(ROWS, COLUMNS) + 100 * number


def write(path: Path, dataset: Dataset, *, implicit: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def base(sop_class: str, modality: str, patient: str, study: str, series: str, frame: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(sop_class), generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
    dataset.Modality = modality
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = patient, NAME, DATE
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.PatientSex = DATE, "120000", "A1", "F"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    return dataset


def series(
    folder: Path,
    *,
    modality: str = "CT",
    slices: int = SLICES,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    spacing: Sequence[float] = (2.0, 1.5),
    step: float = 3.0,
    scale: Callable[[int], tuple[float, float]] = lambda number: (1, -1000),
    change: Change | None = None,
    leave_out: Sequence[int] = (),
    patient: str = PATIENT,
    study: str | None = None,
    frame: str | None = None,
    description: str = "series",
    implicit: bool = False,
) -> list[Dataset]:
    """Write a series in an order of file names that has nothing to do with space; its slices along the normal."""
    study, uid, frame = study or generate_uid(), generate_uid(), frame or generate_uid()
    normal = np.cross(orientation[:3], orientation[3:])
    written = []
    for number in range(slices):
        dataset = base(CLASSES[modality], modality, patient, study, uid, frame)
        pixels = stored(number)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.PixelData = pixels.tobytes()
        dataset.ImageOrientationPatient = [f"{value:.8g}" for value in orientation]
        dataset.ImagePositionPatient = [f"{value:.9g}" for value in np.asarray(origin) + step * number * normal]
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing), step
        dataset.RescaleSlope, dataset.RescaleIntercept = (f"{value:.12g}" for value in scale(number))
        dataset.SeriesDescription, dataset.InstanceNumber = description, slices - number
        if change is not None:
            change(number, dataset)
        written.append(dataset)
        if number not in leave_out:
            write(folder / f"{(number * 7) % 11:02d}_{number}", dataset, implicit=implicit)
    return written


def structure_set(
    path: Path, images: Sequence[Dataset], rois: dict[str, list[np.ndarray]], *, refer: bool = True, **tags: Any
) -> Dataset:
    """Write an RTSTRUCT; ``rois``: name -> contours, (n, 3) points in mm, LPS."""
    first = images[0]
    dataset = base(
        RTSTRUCT, "RTSTRUCT", first.PatientID, first.StudyInstanceUID, generate_uid(), first.FrameOfReferenceUID
    )
    frame, study, referred = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    referred.SeriesInstanceUID = first.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [referred]
    frame.RTReferencedStudySequence = [study]
    if refer:
        dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, outline = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, first.FrameOfReferenceUID
        outline.ReferencedROINumber, outline.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{value:.6f}" for value in np.ravel(points)]
            outline.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(outline)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    write(path, dataset)
    return dataset


def box(grid_to_mm: np.ndarray, low: tuple[float, float], high: tuple[float, float], place: float) -> np.ndarray:
    """The corners in mm of a rectangle given in continuous voxel indices."""
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    index = np.array([[column, row, place, 1.0] for column, row in corners])
    points: np.ndarray = (index @ grid_to_mm.T)[:, :3]
    return points


def lps(images: Sequence[Dataset], step: float = 3.0) -> np.ndarray:
    """(4, 4): voxel index (column, row, slice) -> mm, LPS, of a series as ``series`` writes it."""
    first = images[0]
    row, column = np.array([float(value) for value in first.ImageOrientationPatient]).reshape(2, 3)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = row * float(first.PixelSpacing[1]), column * float(first.PixelSpacing[0])
    matrix[:3, 2], matrix[:3, 3] = np.cross(row, column) * step, [float(v) for v in first.ImagePositionPatient]
    return matrix
