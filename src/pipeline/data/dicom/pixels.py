"""Voxels of a series: decoded slice by slice, rescaled, in the smallest type that holds them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.dicom.fault import DicomError
from pipeline.data.dicom.geometry import Grid, Slice
from pipeline.data.dicom.instance import Instance, quiet
from pipeline.data.image_io.image import DEFLATE_RATIO, ImageError, require_memory

if TYPE_CHECKING:
    from pydicom import Dataset

AGAIN = "copy or export the series again, whole"
UNDEFINED = 0xFFFFFFFF  # length of an element that ends with a delimiter
RESCALE = 0x00281052, 0x00281053, 0x00281054, 0x00283000  # intercept, slope, type, modality look-up table
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
NATIVE = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # pixels as they are
INT16, INT32 = np.iinfo(np.int16), np.iinfo(np.int32)


def read_volume(slices: Sequence[Slice], grid: Grid, instances: Sequence[Instance]) -> np.ndarray:
    """Rescaled voxels (columns, rows, slices) of slices in the order of ``grid``.

    HU for CT, the units of the scanner for PET and MR: slope and intercept of each slice for itself. int16 where all
    values are whole and fit, else int32, float32 where they are not whole. Raises DicomError.
    """
    _require_plausible(instances, grid)
    volume = np.empty(grid.shape, np.int16, order="F")
    for place, values in _values(slices):
        dtype = _wider(volume.dtype, values)
        if dtype != volume.dtype:
            volume = volume.astype(dtype, order="F")
        volume[:, :, place] = values.T
    return volume


def _wider(dtype: np.dtype[np.generic], values: np.ndarray) -> np.dtype[np.generic]:
    if dtype == np.float32 or values.dtype.kind == "f":
        return np.dtype(np.float32)
    low, high = int(values.min()), int(values.max())
    if dtype == np.int16 and INT16.min <= low and high <= INT16.max:
        return dtype
    return np.dtype(np.int32 if INT32.min <= low and high <= INT32.max else np.float32)


def _require_plausible(instances: Sequence[Instance], grid: Grid) -> None:
    """Before anything is allocated: the files can hold the pixels they declare, and memory can."""
    largest = max(instances, key=lambda i: i.rows * i.columns * i.frames)
    for instance in instances:
        declared = instance.rows * instance.columns * instance.frames * instance.bits // 8
        if declared > instance.size and instance.transfer_syntax in NATIVE:
            said = f"truncated: {instance.size:,} bytes, its header declares {declared:,} bytes of pixels"
            raise DicomError(instance.path, said, AGAIN)
    voxels = int(np.prod(grid.shape, dtype=np.int64))
    if voxels > sum(i.size for i in instances) * DEFLATE_RATIO:
        raise DicomError(largest.path, f"its files are too small for the {voxels:,} voxels they declare", AGAIN)
    try:
        require_memory(largest.path, voxels * 4)
        require_memory(largest.path, largest.size)
    except ImageError as error:
        raise DicomError(largest.path, error.fault, *error.remedies[:1]) from None


def _values(slices: Sequence[Slice]) -> Iterator[tuple[int, np.ndarray]]:
    """Place along the normal and rescaled pixels (rows, columns) of each slice; each file is read once."""
    files: dict[Path, dict[int, int]] = {}
    for place, plane in enumerate(slices):
        files.setdefault(plane.path, {})[plane.frame] = place
    for path, frames in files.items():
        for frame, stored in decode(path, sorted(frames)):
            plane = slices[frames[frame]]
            if stored.shape != (plane.rows, plane.columns):
                said = f"frame {frame + 1} decodes to {stored.shape}, not {plane.rows} x {plane.columns} pixels"
                raise DicomError(path, said, AGAIN)
            yield frames[frame], rescale(stored, plane.slope, plane.intercept)


def rescale(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """``stored * slope + intercept``: whole numbers where all values are, else float64."""
    if stored.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer():
        largest = max(abs(int(stored.min())), abs(int(stored.max())))
        if largest * abs(slope) + abs(intercept) < 2**62:
            scaled: np.ndarray = stored.astype(np.int64) * int(slope) + int(intercept)
            return scaled
    values: np.ndarray = stored.astype(np.float64) * slope + intercept
    whole = np.rint(values)
    if np.array_equal(whole, values) and np.abs(whole).max() < 2**62:
        values = whole.astype(np.int64)
    return values


def read_dataset(path: Path) -> Dataset:
    """A whole file in memory; raises DicomError."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with quiet():
        try:
            # from memory, so that a broken length cannot ask for more than the file holds
            dataset = dcmread(io.BytesIO(path.read_bytes()), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit, little = dataset.original_encoding
                explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
            _require_whole(path, dataset)
        except DicomError:
            raise
        except OSError as error:
            raise DicomError(path, f"cannot be read: {error.strerror or error}", AGAIN) from None
        except Exception as error:  # whatever a broken file makes the parser do
            raise DicomError(path, f"is damaged ({type(error).__name__}: {error})", AGAIN) from None
    return dataset


def _require_whole(path: Path, dataset: Dataset) -> None:
    """Raise DicomError where a value is shorter than its length says: pydicom takes what is there."""
    for tag in list(dataset.keys()):  # iterating over the data set itself would parse the values
        element = dataset.get_item(tag)
        value, length = getattr(element, "value", None), getattr(element, "length", None)
        if isinstance(value, bytes) and length not in (None, UNDEFINED) and len(value) < length:
            raise DicomError(path, f"truncated: element {tag} ends early", AGAIN)


def decode(path: Path, frames: Sequence[int], dataset: Dataset | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Stored values (rows, columns) of frames (from 0, ascending) of a file.

    With the decoders that pydicom finds, else with GDCM as it comes with SimpleITK. Raises DicomError.
    """
    dataset = dataset if dataset is not None else read_dataset(path)
    with quiet():
        try:
            yield from _decode(path, frames, dataset)
        except (DicomError, GeneratorExit):
            raise
        except Exception as error:  # each decoder has errors of its own
            raise DicomError(path, f"its pixel data are truncated or damaged ({error})", AGAIN) from None


def _decode(path: Path, frames: Sequence[int], dataset: Dataset) -> Iterator[tuple[int, np.ndarray]]:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import iter_pixels

    syntax = dataset.file_meta.TransferSyntaxUID
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DicomError(path, "has no pixel data: it is truncated, or a header alone", AGAIN)
    if "ModalityLUTSequence" in dataset:
        raise DicomError(path, "its values need a modality look-up table", "export the series with a rescale slope")
    if dataset.get("BitsAllocated") == 1 and syntax in NATIVE:
        yield from _bits(path, dataset, frames)
        return
    decoder = get_decoder(syntax)
    done = -1
    failure: Exception | None = None
    if decoder.is_available:
        try:
            for frame, pixels in zip(frames, iter_pixels(dataset, indices=frames, raw=True), strict=True):
                yield frame, pixels
                done = frame
            return
        except Exception as error:
            failure = error
            if not syntax.is_compressed:
                raise
    try:
        volume = _with_gdcm(dataset)
    except Exception:
        if failure is not None:
            raise failure from None
        said = f"compressed as {syntax.name}, which no installed decoder handles"
        remedy = "decompress it (gdcmconv --raw IN OUT), or: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        raise DicomError(path, said, remedy) from None
    for frame in frames:
        if frame > done:
            yield frame, volume[frame]


def _bits(path: Path, dataset: Dataset, frames: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of one bit per pixel; one begins where the other ends, be it within a byte (PS3.5 section 8.1.1)."""
    shape = int(dataset.Rows), int(dataset.Columns)
    size = shape[0] * shape[1]
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    if packed.size * 8 < size * int(dataset.get("NumberOfFrames") or 1):
        raise DicomError(path, "its pixel data are truncated or damaged (fewer bits than its header declares)", AGAIN)
    for frame in frames:
        begin = frame * size
        bits = np.unpackbits(packed[begin // 8 : (begin + size + 7) // 8], bitorder="little")
        yield frame, bits[begin % 8 : begin % 8 + size].reshape(shape)


def _with_gdcm(dataset: Dataset) -> np.ndarray:
    """Stored values (frames, rows, columns) through SimpleITK, from a temporary file of the pixels alone."""
    import SimpleITK as sitk  # noqa: N813
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    bare = Dataset()
    for element in dataset:
        if element.tag.group in (0x0028, 0x7FE0) and element.tag not in RESCALE:
            bare.add(element)
    bare.SOPClassUID, bare.SOPInstanceUID = SECONDARY_CAPTURE, generate_uid()
    bare.file_meta = type(dataset.file_meta)()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pixels.dcm")
        bare.save_as(path, enforce_file_format=True)
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    array: np.ndarray = sitk.GetArrayFromImage(image)
    frames = int(dataset.get("NumberOfFrames") or 1)
    return array.reshape(frames, int(dataset.Rows), int(dataset.Columns))
