"""PNG, JPEG and BMP pictures through Pillow: ``array[channel, row, column]``, no physical space."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.image_io.image import (
    DAMAGED,
    Header,
    ImageError,
    require_memory,
    require_no_pointer,
    require_plausible,
    require_regular,
)

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GREY = {"1": "u1", "L": "u1", "LA": "u1", "I;16": "u2", "I;16L": "u2", "I;16B": "u2", "I": "i4", "F": "f4"}
COLOUR = {"RGB", "RGBA"}
LOSSY = {".jpg", ".jpeg"}
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # of all that Pillow knows: some run programs


def read_header(path: Path, mask: bool = False) -> Header:
    """Header of a picture; pixels stay unread. A palette means colours in images and class values in masks."""
    require_regular(path)
    with _opened(path) as picture:
        return _header(path, picture, mask)


def read(path: Path, mask: bool = False, content: bytes | None = None) -> tuple[Header, np.ndarray]:
    """Header and pixels, (C, row, column). An alpha channel must be opaque and is dropped. Raises ImageError.

    ``content``: the bytes of the file where they were read before.
    """
    if content is None:
        require_regular(path)
    else:
        require_no_pointer(path, content[:64])
    with _opened(path, content) as picture:
        header = _header(path, picture, mask)
        require_memory(path, header.nbytes)
        try:
            picture.load()
        except DAMAGED as error:
            fault = f"its pixels cannot be read: truncated or corrupt ({error})"
            raise ImageError(path, fault, "copy or download it again") from None
        if picture.mode in ("LA", "RGBA"):
            if picture.getchannel("A").getextrema() != (255, 255):
                raise ImageError(path, "has transparent pixels", "save it without an alpha channel")
            picture = picture.convert(picture.mode[:-1])
        if picture.mode == "P" and not mask:
            picture = picture.convert("L" if header.channels == 1 else "RGB")
        array = np.array(picture)
    array = array.astype(header.dtype, copy=False)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return header, one_channel(path, array) if mask else array


def one_channel(path: Path, array: np.ndarray) -> np.ndarray:
    """The one channel of a mask whose three colours (channels first) are equal; raises ImageError."""
    if array.shape[0] != 3:
        return array
    if not (array[0] == array[1]).all() or not (array[0] == array[2]).all():
        raise ImageError(path, "is a colour picture, not a mask", "save class values as grey levels")
    return array[:1]


def write(path: Path, array: np.ndarray) -> None:
    """Grey picture of class values, (row, column), 8 or 16 bits. Raises ImageError for other values."""
    import PIL.Image

    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(path, f"a picture cannot hold label values of type {array.dtype}")
    if path.suffix.lower() in LOSSY:
        raise ImageError(path, "JPEG alters the values of a mask", "write a PNG")
    PIL.Image.fromarray(array).save(path)


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[Picture]:
    import PIL.Image

    _silence()
    try:
        with PIL.Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as picture:
            yield picture
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(path, f"too large: {error}") from None
    except DAMAGED as error:
        fault = f"not a picture that can be read ({str(error).replace(str(path), path.name)})"
        raise ImageError(path, fault, "copy or download it again") from None


@cache
def _silence() -> None:
    warnings.filterwarnings("ignore", module="PIL")  # what matters of it is found here


def _header(path: Path, picture: Picture, mask: bool) -> Header:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ImageError(path, f"has {frames} pages; one is supported", "save each page as a file")
    mode = picture.mode
    doubts = []
    # Pillow would cut 16-bit colours to 8 bits without a word
    stored = [str(tile[3]) for tile in getattr(picture, "tile", []) if len(tile) > 3]
    if mode in COLOUR and any(";16" in name for name in stored):
        raise ImageError(path, "16-bit colour is not supported", "save it as 16-bit grey or 8-bit colour")
    if "transparency" in picture.info:
        doubts.append("a transparent colour is declared; it is ignored")
    if (picture.format in ("JPEG", "TIFF") or "exif" in picture.info) and picture.getexif().get(0x0112, 1) != 1:
        doubts.append("an EXIF orientation is declared; it is ignored")
    channels, dtype = 1, np.dtype(np.uint8)
    if mode in GREY:
        dtype = np.dtype(GREY[mode])
    elif mode == "P":
        colours = np.array(picture.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        grey = bool((colours[:, 0] == colours[:, 1]).all() and (colours[:, 0] == colours[:, 2]).all())
        channels = 1 if mask or grey else 3
    elif mode in COLOUR:
        channels = 1 if mask else 3
    else:
        raise ImageError(path, f"colour mode {mode} is not supported", "save it as grey or RGB")
    shape = (int(picture.height), int(picture.width))
    if picture.format == "PNG":  # one bit per pixel at least
        require_plausible(path, shape[0] * shape[1] // 8, path.stat().st_size, compressed=True)
    return Header(shape, np.eye(4), dtype, channels, tuple(doubts))
