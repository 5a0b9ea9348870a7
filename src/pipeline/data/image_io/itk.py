"""NRRD, MHA and MHD through SimpleITK, whose world is LPS: first and second coordinate change sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.image_io.detached import locate
from pipeline.data.image_io.image import (
    LPS_TO_RAS,
    Header,
    ImageError,
    require_memory,
    require_plausible,
)


def read_header(path: Path) -> Header:
    """Header of an NRRD, MHA or MHD file, without its voxels. Raises ImageError."""
    itk = _itk()
    voxels = locate(path)
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(path, f"its header cannot be read ({_reason(error)})", "copy or download it again") from None
    dims = reader.GetDimension()
    if dims not in (2, 3):
        raise ImageError(path, f"has {dims} dimensions; 2 or 3 are supported")
    sample = itk.Image([1] * dims, reader.GetPixelID(), reader.GetNumberOfComponents())
    dtype = itk.GetArrayViewFromImage(sample).dtype
    if dtype.kind not in "iuf":
        raise ImageError(path, f"data type {dtype} is no single number per voxel")

    shape = tuple(int(length) for length in reader.GetSize())
    spacing = np.array(reader.GetSpacing())
    direction = np.array(reader.GetDirection()).reshape(dims, dims)
    affine = np.eye(4)
    affine[:dims, :dims] = direction * spacing
    affine[:dims, 3] = reader.GetOrigin()
    if dims == 2:  # pictures are array[row, column], as from a PNG
        shape = shape[::-1]
        affine[:, :2] = affine[:, 1::-1]
    header = Header(shape, LPS_TO_RAS @ affine, dtype, reader.GetNumberOfComponents())
    if min(shape) < 1 or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise ImageError(path, f"no usable affine: size {shape}, spacing {spacing.tolist()}")
    size = voxels.path.stat().st_size
    require_plausible(path, header.nbytes + (voxels.offset or 0), size, voxels.compressed)
    return header


def read_array(path: Path, header: Header) -> np.ndarray:
    """Voxels, (C, *spatial) in the axes of the header. Raises ImageError."""
    itk = _itk()
    require_memory(path, header.nbytes)
    try:
        image = itk.ReadImage(str(path))
    except RuntimeError as error:
        fault = f"its voxels cannot be read: truncated or corrupt ({_reason(error)})"
        raise ImageError(path, fault, "copy or download it again") from None
    array: np.ndarray = itk.GetArrayFromImage(image)
    if header.channels == 1:
        array = array[..., None]
    array = np.moveaxis(array, -1, 0)
    return array if header.spatial_dims == 2 else array.transpose(0, 3, 2, 1)


def write(path: Path, array: np.ndarray, header: Header) -> None:
    """One-channel voxels (*spatial), with the affine of ``header``."""
    itk = _itk()
    dims = header.spatial_dims
    affine = LPS_TO_RAS @ header.affine
    if dims == 2:
        affine[:, :2] = affine[:, 1::-1]
    else:
        array = array.transpose(2, 1, 0)
    spacing = np.sqrt((affine[:dims, :dims] ** 2).sum(axis=0))
    image = itk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:dims, 3].tolist())
    image.SetDirection((affine[:dims, :dims] / spacing).ravel().tolist())
    itk.WriteImage(image, str(path), useCompression=True)


def _itk() -> Any:
    import SimpleITK

    itk: Any = SimpleITK
    itk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings would tear the progress bar
    return itk


def _reason(error: Exception) -> str:
    """The last telling line of an ITK message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("ERROR:")[-1].strip()[:160] if lines else "no reason given"
