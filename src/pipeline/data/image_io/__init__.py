"""Images on disk, one interface for all formats: header, voxels, and masks written back on the native grid.

.nii, .nii.gz (NIfTI), .nrrd, .mha, .mhd, .png, .jpg, .bmp, .tif, .npy, .npz, and the images in an array of an .npz.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.data.case import ArraySource, Source
from pipeline.data.image_io import arrays, itk, nifti, numpy_file, raster, tiff
from pipeline.data.image_io.checksums import verify_png, verify_volume
from pipeline.data.image_io.detached import locate
from pipeline.data.image_io.image import Digest, Header, Image, ImageError, require_memory, require_regular
from pipeline.data.labels import Labels

__all__ = [
    "RASTER",
    "SUFFIXES",
    "WITH_SPACE",
    "Header",
    "Image",
    "ImageError",
    "files_of",
    "mask_name",
    "read_blocks",
    "read_header",
    "read_image",
    "read_mask",
    "stem_of",
    "suffix_of",
    "write_mask",
]

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha", ".mhd")
RASTER = (".png", ".jpg", ".jpeg", ".bmp")
TIFF = (".tif", ".tiff")
NUMPY = (".npy", ".npz")
WITH_SPACE = NIFTI + ITK  # formats whose affine says where left and right are
SUFFIXES = NIFTI + ITK + RASTER + TIFF + NUMPY
MASK_SUFFIXES = {".jpg": ".png", ".jpeg": ".png", ".bmp": ".png", ".mhd": ".mha"}  # of images whose own cannot be
HASH_BLOCK = 1 << 20


def suffix_of(path: Path) -> str:
    """The file's format by its name, e.g. ``.nii.gz``; raises ImageError where it is none of SUFFIXES."""
    name = path.name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise ImageError(path, f"unknown image format; the name should end in {', '.join(SUFFIXES)}")


def stem_of(path: Path) -> str:
    """The file name without the format's suffix."""
    return path.name[: -len(suffix_of(path))]


def read_header(source: Source, *, mask: bool = False) -> Header:
    """Shape, affine, type and channels; no voxels are read, but for an array of images. Raises ImageError."""
    if isinstance(source, ArraySource):
        array = arrays.read_array(source.path, source.key)
        _within(source, array)
        return arrays.header_of(array)
    suffix = suffix_of(source.path)
    if suffix in NIFTI:
        return nifti.read_header(source.path)
    if suffix in ITK:
        return itk.read_header(source.path)
    header: Header = _whole_format(suffix).read_header(source.path, mask)
    return header


def read_image(source: Source, *, mask: bool = False) -> Image:
    """All voxels of one source, (C, *spatial) in native type; raises ImageError where the file is not whole."""
    header, blocks = read_blocks(source, mask=mask)
    if not isinstance(source, ArraySource) and suffix_of(source.path) in NIFTI:
        require_memory(source.path, header.nbytes)
        flat = np.empty(header.channels * int(np.prod(header.shape)), header.dtype)
        at = 0
        for block in blocks:
            flat[at : at + block.size] = block
            at += block.size
        array = np.moveaxis(flat.reshape((*header.shape, header.channels), order="F"), -1, 0)
    else:
        array = np.require(next(blocks), requirements="W")
    return Image(array, header.affine, header.spatial_dims)


def read_mask(source: Source) -> Image:
    """A mask of raw values, (1, *spatial); raises ImageError where it has several channels."""
    image = read_image(source, mask=True)
    if image.array.shape[0] != 1:
        raise ImageError(source.path, f"has {image.array.shape[0]} channels; a mask has one")
    return image


def read_blocks(
    source: Source, *, mask: bool = False, digest: Digest | None = None, doubts: list[str] | None = None
) -> tuple[Header, Iterator[np.ndarray]]:
    """Header and voxels in pieces: flat blocks of a NIfTI file in storage order, one (C, *spatial) array otherwise.

    ``digest`` is fed with the bytes of the file, whose own checksums are then verified too; to ``doubts`` is added what
    is odd behind the voxels. Exhausting the iterator proves the file readable to its end.
    """
    if isinstance(source, ArraySource):
        array = arrays.read_array(source.path, source.key)
        _within(source, array)
        return arrays.header_of(array), iter((array[source.index],))
    path = source.path
    suffix = suffix_of(path)
    if suffix in NIFTI:
        return nifti.read_blocks(path, digest, doubts)
    if suffix in RASTER and digest is not None:
        require_regular(path, opened=False)
        content = path.read_bytes()
        digest.update(content)
        header, pixels = raster.read(path, mask, content)
        if doubts is not None and suffix == ".png":
            # what Pillow makes up for pixels that are absent is black
            doubts += verify_png(path, content, count=not pixels[:, -1].any())
        return header, iter((pixels,))
    if digest is not None:
        for part in files_of(path):
            require_regular(part)
            with part.open("rb") as file:
                while chunk := file.read(HASH_BLOCK):
                    digest.update(chunk)
    if suffix in ITK:
        if digest is not None:
            verify_volume(path)
        header = itk.read_header(path)
        return header, iter((itk.read_array(path, header),))
    header, pixels = _whole_format(suffix).read(path, mask)
    return header, iter((pixels,))


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that make up an image: itself, and the one beside it that holds the voxels of an .mhd (or .nrrd)."""
    return tuple(dict.fromkeys((path, locate(path).path))) if suffix_of(path) in ITK else (path,)


def _whole_format(suffix: str) -> ModuleType:
    """The module of a format that is read as a whole."""
    return tiff if suffix in TIFF else numpy_file if suffix in NUMPY else raster


def mask_name(source: Source) -> str:
    """File name for the mask of an image: the image's own, or .png where that alters values or cannot hold them all.

    An .mhd gets an .mha, which is one file; an image inside an array gets a .png.
    """
    if isinstance(source, ArraySource):
        return f"{source.key}_{source.index:05d}.png"
    suffix = suffix_of(source.path)
    return stem_of(source.path) + MASK_SUFFIXES[suffix] if suffix in MASK_SUFFIXES else source.path.name


def write_mask(path: Path, indices: np.ndarray, labels: Labels, like: Source) -> None:
    """Write class indices (*spatial) of the image ``like`` as raw label values on its grid and with its affine.

    NIfTI keeps the form codes of ``like``. The file appears whole or not at all. Raises ImageError.
    """
    header = read_header(like)
    if indices.shape != header.shape:
        raise ValueError(f"mask of shape {indices.shape} for {like.name} of shape {header.shape}")
    values = labels.to_value(indices)
    suffix = suffix_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    try:
        if suffix in NIFTI:
            _write_nifti(partial, values, header, like)
        elif suffix in ITK:
            itk.write(partial, values, header)
        elif suffix in RASTER:
            raster.write(partial, values)
        else:
            _whole_format(suffix).write(partial, values, header)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_nifti(path: Path, values: np.ndarray, header: Header, like: Source) -> None:
    import nibabel as nib

    if suffix_of(like.path) in NIFTI:
        raw: Any = nib.load(like.path).header.copy()
        raw.set_data_dtype(values.dtype)
        raw.set_slope_inter(1, 0)
        raw["cal_min"] = raw["cal_max"] = 0
        codes = int(raw["sform_code"]), int(raw["qform_code"])
        kind: Any = nib.Nifti2Image if isinstance(raw, nib.Nifti2Header) else nib.Nifti1Image
        image: Any = kind(values, header.affine, raw)
        image.header["sform_code"], image.header["qform_code"] = codes
    else:
        image = nib.Nifti1Image(values, header.affine)
        image.set_sform(header.affine, 1)
        image.set_qform(header.affine, 1, strip_shears=True)
        image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _within(source: ArraySource, array: np.ndarray) -> None:
    if not 0 <= source.index < len(array):
        raise ImageError(source.path, f"array {source.key} has {len(array)} images; number {source.index} is missing")
