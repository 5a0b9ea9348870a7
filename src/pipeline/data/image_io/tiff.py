"""TIFF pictures and stacks of pages through tifffile, and Pillow where the compression asks for it.

One page is a 2D picture ``array[channel, row, column]``; pages of one shape are the slices of a volume ``array[channel,
x, y, page]`` in LPS, as ITK reads them.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.image_io import raster
from pipeline.data.image_io.image import (
    DAMAGED,
    DEFLATE_RATIO,
    LPS_TO_RAS,
    SMALL,
    Header,
    ImageError,
    require_memory,
)
from pipeline.data.image_io.tiff_spacing import spacing_mm
from pipeline.data.image_io.tiff_stack import SLICES, Stack, opened

DEFLATE = (8, 32946)


def read_header(path: Path, mask: bool = False) -> Header:
    """Header of a TIFF file; pixels stay unread. Raises ImageError."""
    with opened(path) as stack:
        return _header(path, stack, mask)


def read(path: Path, mask: bool = False) -> tuple[Header, np.ndarray]:
    """Header and pixels, (C, *spatial). Raises ImageError."""
    with opened(path) as stack:
        header = _header(path, stack, mask)
        require_memory(path, header.nbytes)
        if stack.simple:
            return header, raster.read(path, mask)[1]
        array = _pixels(path, stack)
        axes = stack.axes
    slices = next((axis for axis in axes if axis in SLICES), "")
    channels = "".join(axis for axis in axes if axis in "CS")
    order = [axes.index(axis) for axis in channels + ("X" + "Y" + slices if slices else "YX")]
    array = array.transpose(order).reshape(-1, *header.shape)
    if mask or "S" in axes:
        array = _without_alpha(path, array, stack.size("S"))
        array = raster.one_channel(path, array) if mask else array
    return header, array.astype(header.dtype, copy=False)


def write(path: Path, array: np.ndarray, header: Header) -> None:
    """One-channel class values (*spatial), with the spacing of ``header`` where it is not 1 mm throughout."""
    import tifffile

    settings: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    spacing = header.spacing
    axes = "YX"
    if array.ndim == 3:
        array, spacing, axes = array.transpose(2, 1, 0), spacing[::-1], "ZYX"
    if any(length != 1 for length in spacing):
        settings |= {"resolution": (10 / spacing[-1], 10 / spacing[-2]), "resolutionunit": "CENTIMETER"}
    metadata = {"axes": axes, "unit": "mm"} | ({"spacing": spacing[0]} if len(spacing) == 3 else {})
    tifffile.imwrite(path, np.ascontiguousarray(array), metadata=metadata, **settings)


def _header(path: Path, stack: Stack, mask: bool) -> Header:
    spacing, doubt = spacing_mm(stack.tif, stack.page, stack.volume)
    doubts = (doubt,) if doubt else ()
    if stack.simple:
        found = raster.read_header(path, mask)
        affine = np.diag([spacing[1], spacing[0], 1.0, 1.0])
        return Header(found.shape, affine, found.dtype, found.channels, found.doubts + doubts)
    dtype = np.dtype(stack.series.dtype)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ImageError(path, f"data type {dtype} is no single number per voxel", "convert it to numbers")
    wider = {"b1": np.uint8, "f2": np.float32}.get(dtype.str[1:])
    dtype = np.dtype(wider) if wider is not None else dtype.newbyteorder("=")
    colours = stack.page.photometric
    if colours not in (0, 1, 2, 6) and not (colours == 3 and mask):
        raise ImageError(path, f"colour space {getattr(colours, 'name', colours)} is not supported", "save it as grey")
    samples = stack.size("S")
    channels = 1 if mask else stack.size("C") * (samples - (samples in (2, 4)))
    if stack.volume:
        shape = (stack.size("X"), stack.size("Y"), stack.size(SLICES))
        return Header(shape, LPS_TO_RAS @ np.diag([*spacing, 1.0]), dtype, channels, doubts)
    affine = np.diag([spacing[1], spacing[0], 1.0, 1.0])
    return Header((stack.size("Y"), stack.size("X")), affine, dtype, channels, doubts)


def _pixels(path: Path, stack: Stack) -> np.ndarray:
    """All pixels in the axes of the stack, with white as the largest value."""
    page = stack.page
    white_is_zero = page.photometric == 0
    try:
        if page.compression == 1 or (page.compression in DEFLATE and page.photometric != 6):
            if page.compression != 1:
                _require_bounded(path, stack)
            array = stack.series.asarray(maxworkers=1)
        else:
            array = _by_pillow(path, stack)
            white_is_zero = white_is_zero and page.bitspersample > 8  # Pillow turns up to 8 bits itself
        array = array.reshape(stack.shape)
    except DAMAGED as error:
        fault = f"its pixels cannot be read: truncated, corrupt or compressed in a way not supported ({error})"
        raise ImageError(path, fault, "save it uncompressed or with deflate") from None
    if white_is_zero and array.dtype.kind in "bu":
        array = ~array
    return np.asarray(array)


def _require_bounded(path: Path, stack: Stack) -> None:
    """Refuse pieces that would grow beyond their place in the image: tifffile inflates them without a limit."""
    limit = int(np.prod(stack.page.chunks)) * stack.page.bitspersample // 8 + (1 << 16)
    with path.open("rb") as file:
        for page in stack.series.pages:
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                if count * DEFLATE_RATIO <= SMALL:
                    continue
                file.seek(offset)
                if len(zlib.decompressobj().decompress(file.read(count), limit + 1)) > limit:
                    raise ImageError(path, "too large: a part of it unpacks to more than its place in the image")


def _by_pillow(path: Path, stack: Stack) -> np.ndarray:
    import PIL.Image

    if "S" in stack.axes[:-1]:
        raise ValueError("each colour in a plane of its own")
    pages = []
    with PIL.Image.open(path, formats=("TIFF",)) as picture:
        for page in stack.series.pages:
            picture.seek(page.index)
            array = np.asarray(picture)
            if array.dtype.itemsize * 8 < stack.page.bitspersample:
                raise ValueError(f"{stack.page.bitspersample} bits in mode {picture.mode}")
            pages.append(array)
    return np.stack(pages)


def _without_alpha(path: Path, array: np.ndarray, samples: int) -> np.ndarray:
    """Channels without the last of 2 or 4 samples, which must be opaque."""
    if samples not in (2, 4):
        return array
    most = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
    if (array[samples - 1 :: samples] != most).any():
        raise ImageError(path, "has transparent pixels", "save it without an alpha channel")
    return np.delete(array, np.s_[samples - 1 :: samples], axis=0)
