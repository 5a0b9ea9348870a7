"""One DICOM file by its header: what it is, where it lies and what it refers to. No pixels are read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.data.dicom.preamble import bounded, looks_like_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

Kind = Literal["image", "rtstruct", "seg", "other"]

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # segmentation, label map segmentation
RT_IMAGE = "1.2.840.10008.5.1.4.1.1.481.1"  # a portal image
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
DICOMDIR = "1.2.840.10008.1.3.10"
LONGEST = 1 << 16  # bytes of a header value
LONGEST_SEQUENCE = 1 << 26  # bytes of the lists of ROIs, segments and references

COMMON = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID"),
    *("Modality", "SeriesDescription", "ImageType", "Units", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SpacingBetweenSlices", "SliceThickness", "RescaleSlope", "RescaleIntercept"),
)
REFERRING = (
    *("StructureSetROISequence", "ReferencedFrameOfReferenceSequence", "SegmentSequence"),
    *("ReferencedSeriesSequence", "SourceImageSequence"),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """A DICOM file.

    ``position``, ``orientation``, ``spacing``: ImagePositionPatient (mm, LPS), ImageOrientationPatient and PixelSpacing
    (mm between rows, between columns), None where absent. ``thickness``: SpacingBetweenSlices, else SliceThickness.
    ``names``: of ROIs or segments. ``series_referred``, ``images_referred``: UIDs. ``malformed``: tags whose value is
    none.
    """

    path: Path
    size: int
    modified: int
    kind: Kind
    sop_class: str
    uid: str
    series: str
    study: str
    patient: str
    frame_of_reference: str
    modality: str
    description: str
    image_type: tuple[str, ...]
    transfer_syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    slope: float
    intercept: float
    units: str
    names: tuple[str, ...] = ()
    series_referred: tuple[str, ...] = ()
    images_referred: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


def read_instance(path: Path) -> Instance | None:
    """The header of a file; None where the file is no DICOM. Raises OSError, and ValueError for a broken header."""
    status = path.stat()
    if not looks_like_dicom(path, status):
        return None
    with quiet():
        try:
            return _instance(path, status.st_size, status.st_mtime_ns)
        except OSError:
            raise
        except Exception as error:  # whatever a broken header makes the parser do
            raise ValueError(f"its DICOM header cannot be read ({type(error).__name__}: {error})") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of pydicom: values are judged here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _instance(path: Path, size: int, modified: int) -> Instance | None:
    from pydicom.uid import UID

    header = _read(path, COMMON, LONGEST)
    reader = _Values(header)
    sop_class = reader.text("SOPClassUID") or str(header.file_meta.get("MediaStorageSOPClassUID", ""))
    if sop_class == DICOMDIR:
        return None
    known = UID(sop_class).name != sop_class
    if not sop_class or not (known or reader.text("SeriesInstanceUID")):
        raise ValueError("begins as DICOM and does not say what it is (SOPClassUID): truncated, or no DICOM")
    kind: Kind = "other"
    if sop_class == RTSTRUCT:
        kind = "rtstruct"
    elif sop_class in SEG:
        kind = "seg"
    elif sop_class not in (RT_DOSE, RT_IMAGE) and ("Rows" in header or "Image Storage" in UID(sop_class).name):
        kind = "image"
    names: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    if kind in ("rtstruct", "seg"):
        referring = _read(path, REFERRING, LONGEST_SEQUENCE)
        names = _names(referring)
        series, images = _references(referring)
    distance = reader.number("SpacingBetweenSlices") or reader.number("SliceThickness")
    slope, intercept = reader.number("RescaleSlope"), reader.number("RescaleIntercept")
    return Instance(
        path=path,
        size=size,
        modified=modified,
        kind=kind,
        sop_class=sop_class,
        uid=reader.text("SOPInstanceUID"),
        series=reader.text("SeriesInstanceUID"),
        study=reader.text("StudyInstanceUID"),
        patient=reader.text("PatientID"),
        frame_of_reference=reader.text("FrameOfReferenceUID"),
        modality=reader.text("Modality"),
        description=reader.text("SeriesDescription"),
        image_type=tuple(reader.text("ImageType").upper().split("\\")),
        transfer_syntax=str(header.file_meta.get("TransferSyntaxUID", "")),
        rows=reader.count("Rows", 0),
        columns=reader.count("Columns", 0),
        frames=reader.count("NumberOfFrames", 1),
        samples=reader.count("SamplesPerPixel", 1),
        photometric=reader.text("PhotometricInterpretation"),
        bits=reader.count("BitsAllocated", 16),
        position=reader.vector("ImagePositionPatient", 3),
        orientation=reader.vector("ImageOrientationPatient", 6),
        spacing=reader.vector("PixelSpacing", 2),
        thickness=abs(distance) if distance else None,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        units=reader.text("Units"),
        names=names,
        series_referred=series,
        images_referred=images,
        malformed=tuple(reader.malformed),
    )


def _read(path: Path, tags: tuple[str, ...], limit: int) -> Dataset:
    from pydicom import dcmread

    with bounded(path, limit) as file:
        return dcmread(file, force=True, stop_before_pixels=True, specific_tags=[*tags])


class _Values:
    """Values of a header; what is there and no value of its kind is noted in ``malformed``."""

    def __init__(self, header: Dataset) -> None:
        self.header = header
        self.malformed: list[str] = []

    def text(self, keyword: str) -> str:
        value = self._get(keyword)
        if value is None:
            return ""
        parts = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
        return "\\".join(str(part).strip(" \0") for part in parts)

    def number(self, keyword: str) -> float | None:
        found = self.vector(keyword, 1)
        return None if found is None else found[0]

    def count(self, keyword: str, default: int) -> int:
        found = self.number(keyword)
        return default if found is None else int(found)

    def vector(self, keyword: str, length: int) -> tuple[float, ...] | None:
        value = self._get(keyword)
        if value is None or value == "":
            return None
        try:
            parts = [value] if length == 1 else list(value)
            numbers = tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) != length or not all(math.isfinite(number) for number in numbers):
            self.malformed.append(f"{keyword} is {str(value)[:60]}")
            return None
        return numbers

    def _get(self, keyword: str) -> Any:
        try:
            return self.header.get(keyword)
        except Exception:
            self.malformed.append(f"{keyword} cannot be read")
            return None


def _names(header: Dataset) -> tuple[str, ...]:
    rois = [str(roi.get("ROIName", "")).strip() for roi in header.get("StructureSetROISequence") or ()]
    segments = [segment_name(segment) for segment in header.get("SegmentSequence") or ()]
    return tuple(dict.fromkeys(name for name in rois + segments if name))


def segment_name(segment: Dataset) -> str:
    """The name of a segment of a SEG."""
    return str(segment.get("SegmentLabel", "")).strip() or f"segment {segment.get('SegmentNumber', '')}"


def _references(header: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """UIDs of the series and images that contours or segments were drawn on."""
    series, images = [], []
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for referred in study.get("RTReferencedSeriesSequence") or ():
                series.append(str(referred.get("SeriesInstanceUID", "")))
                images += [
                    str(i.get("ReferencedSOPInstanceUID", "")) for i in referred.get("ContourImageSequence") or ()
                ]
    for referred in header.get("ReferencedSeriesSequence") or ():
        series.append(str(referred.get("SeriesInstanceUID", "")))
    images += [str(image.get("ReferencedSOPInstanceUID", "")) for image in header.get("SourceImageSequence") or ()]
    return tuple(dict.fromkeys(uid for uid in series if uid)), tuple(dict.fromkeys(uid for uid in images if uid))
