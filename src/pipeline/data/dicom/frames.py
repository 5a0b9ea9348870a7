"""The planes of a series: one per file, or the frames of enhanced multi-frame files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.dicom.fault import DicomError
from pipeline.data.dicom.geometry import Slice
from pipeline.data.dicom.instance import Instance, quiet
from pipeline.data.dicom.preamble import bounded

if TYPE_CHECKING:
    from pydicom import Dataset

ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR",
    "1.2.840.10008.5.1.4.1.1.130": "Enhanced PET",
    "1.2.840.10008.5.1.4.1.1.128.1": "Legacy Converted Enhanced PET",
}
LONGEST_GROUPS = 1 << 28  # bytes of all functional groups of a file
LONGEST_AXIS = 32767  # of a NIfTI file
GEOMETRY = ("position", "orientation", "spacing")
TAGS = {"position": "ImagePositionPatient", "orientation": "ImageOrientationPatient", "spacing": "PixelSpacing"}
NO_PLACE = "without its place in the patient it is no slice of a volume; X-ray pictures: convert them to PNG"
SHARED = ["NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]


def list_slices(instances: Sequence[Instance], max_voxels: int) -> list[Slice]:
    """The planes of a series in the order of its files; raises DicomError for what is no volume of grey values."""
    voxels = sum(max(1, i.frames) * i.rows * i.columns for i in instances)
    biggest = max(instances, key=lambda i: i.rows * i.columns * i.frames)
    if voxels > max_voxels or max(biggest.rows, biggest.columns, biggest.frames, len(instances)) > LONGEST_AXIS:
        said = f"too large: the headers of the series declare {voxels:,} voxels"
        raise DicomError(biggest.path, said, f"the limit is {max_voxels:,} (max_voxels) and {LONGEST_AXIS:,} an axis")
    return [plane for instance in instances for plane in _planes(instance)]


def _planes(instance: Instance) -> Iterator[Slice]:
    path = instance.path
    if instance.malformed:
        raise DicomError(path, f"broken header: {instance.malformed[0]}", "export the series again")
    if min(instance.rows, instance.columns, instance.frames) < 1:
        said = f"Rows {instance.rows}, Columns {instance.columns}, NumberOfFrames {instance.frames}: no pixels"
        raise DicomError(path, said + " (its header ends early?)", "copy or export the series again, whole")
    if instance.samples != 1 or instance.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        said = f"has no grey values: PhotometricInterpretation {instance.photometric or 'is missing'}"
        raise DicomError(path, said, "colour images and those with a palette are not imported: leave the series out")
    if instance.sop_class in ENHANCED:
        yield from _enhanced(instance)
        return
    if instance.frames > 1:
        said = f"{instance.modality} multi-frame image of a kind that gives no position for each frame"
        raise DicomError(path, said, f"understood are {', '.join(sorted(ENHANCED.values()))}")
    absent = [TAGS[name] for name in GEOMETRY if getattr(instance, name) is None]
    if absent:
        raise DicomError(path, f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing", NO_PLACE)
    assert instance.position is not None and instance.orientation is not None and instance.spacing is not None
    yield _slice(
        instance, 0, instance.position, instance.orientation, instance.spacing, instance.slope, instance.intercept
    )


def _slice(
    instance: Instance,
    frame: int,
    position: tuple[float, ...],
    orientation: tuple[float, ...],
    spacing: tuple[float, ...],
    slope: float,
    intercept: float,
) -> Slice:
    if slope == 0:
        raise DicomError(instance.path, "RescaleSlope is 0: all voxels would be equal", "export the series again")
    return Slice(
        path=instance.path,
        frame=frame,
        uid=instance.uid,
        rows=instance.rows,
        columns=instance.columns,
        position=position,
        orientation=orientation,
        spacing=spacing,
        slope=slope,
        intercept=intercept,
    )


def _enhanced(instance: Instance) -> Iterator[Slice]:
    from pydicom import dcmread

    path = instance.path
    with quiet(), bounded(path, LONGEST_GROUPS) as file:
        try:
            header = dcmread(file, force=True, stop_before_pixels=True, specific_tags=[*SHARED])
            shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
            groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
            if len(groups) != instance.frames:
                said = f"NumberOfFrames is {instance.frames}, functional groups are there for {len(groups)}"
                raise DicomError(path, said, "copy or export it again")
            for frame, own in enumerate(groups):
                position = frame_value(own, shared, "PlanePositionSequence", "ImagePositionPatient", 3)
                orientation = frame_value(own, shared, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
                spacing = frame_value(own, shared, "PixelMeasuresSequence", "PixelSpacing", 2)
                if position is None or orientation is None or spacing is None:
                    said = f"frame {frame + 1} has no position, orientation or spacing in its functional groups"
                    raise DicomError(path, said, NO_PLACE)
                slope = frame_value(own, shared, "PixelValueTransformationSequence", "RescaleSlope", 1)
                intercept = frame_value(own, shared, "PixelValueTransformationSequence", "RescaleIntercept", 1)
                scale = slope[0] if slope else instance.slope, intercept[0] if intercept else instance.intercept
                yield _slice(instance, frame, position, orientation, spacing, *scale)
        except DicomError:
            raise
        except Exception as error:  # whatever broken functional groups make the parser do
            said = f"its functional groups cannot be read ({type(error).__name__}: {error})"
            raise DicomError(path, said, "copy or export it again") from None


def enhanced_thickness(path: Path) -> float | None:
    """SpacingBetweenSlices, else SliceThickness, of the first frame of an enhanced file, in mm; None where unknown."""
    from pydicom import dcmread

    with quiet(), bounded(path, LONGEST_GROUPS) as file:
        header = dcmread(file, force=True, stop_before_pixels=True, specific_tags=[*SHARED])
        shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
        own = (header.get("PerFrameFunctionalGroupsSequence") or [{}])[0]
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            try:
                found = frame_value(own, shared, "PixelMeasuresSequence", keyword, 1)
            except ValueError:  # no number
                continue
            if found and found[0]:
                return abs(found[0])
    return None


def frame_value(
    own: Dataset | dict[str, Any], shared: Dataset | dict[str, Any], sequence: str, keyword: str, length: int
) -> tuple[float, ...] | None:
    """A value of a functional group: of the frame itself, else of all frames."""
    for groups in (own, shared):
        items = groups.get(sequence)
        value = items[0].get(keyword) if items else None
        if value is None or value == "":
            continue
        numbers = tuple(float(part) for part in ([value] if length == 1 else value))
        if len(numbers) != length or not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{keyword} is {value}")
        return numbers
    return None
