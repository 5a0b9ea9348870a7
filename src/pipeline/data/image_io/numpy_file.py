"""One image in a .npy or .npz file, as NumPy saves it; nothing in it is ever unpickled.

``(row, column)`` is a picture, ``(x, y, z)`` a volume in RAS; channels stand last (1 or 3 of a picture, any number of a
volume), or first where there is one. An .npz holds one array, or ``image`` and ``label``; ``spacing`` (mm, one number
per axis) is optional.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.data.image_io.image import DAMAGED, Header, ImageError, require_memory, require_plausible, require_regular

NO_SPACING = "no spacing is written; 1 mm is taken"
ROLE = {False: "image", True: "label"}  # key of an .npz, by whether a mask is wanted
AGAIN = "copy or download it again"


@dataclass(frozen=True)
class _Stored:
    """An array inside a file: ``name`` of its entry, None in an .npy; ``shape`` and ``dtype`` as they are stored."""

    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: tuple[float, ...] | None


def read_header(path: Path, mask: bool = False) -> Header:
    """Header of the image, or of the mask; no voxels are read. Raises ImageError."""
    return _header(path, _stored(path, mask))


def read(path: Path, mask: bool = False) -> tuple[Header, np.ndarray]:
    """Header and voxels, (C, *spatial). Raises ImageError."""
    stored = _stored(path, mask)
    header = _header(path, stored)
    require_memory(path, header.nbytes)
    try:
        with _entry(path, stored.name) as file:
            array = np.asarray(np.lib.format.read_array(file, allow_pickle=False))
            if file.read(1):
                raise ValueError("bytes follow the array")
    except DAMAGED as error:
        raise ImageError(path, f"its array cannot be read: truncated or corrupt ({error})", AGAIN) from None
    if len(array.shape) > header.spatial_dims and array.shape[0] != 1:
        array = np.moveaxis(array, -1, 0)
    array = array.reshape(header.channels, *header.shape)
    return header, array.astype(header.dtype, copy=False)


def write(path: Path, array: np.ndarray, header: Header) -> None:
    """Class values (*spatial); an .npz gets them as ``label``, with the spacing."""
    if path.suffix.lower() == ".npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, label=array, spacing=np.array(header.spacing))


def holds_image_and_label(path: Path) -> bool:
    """Whether one .npz holds an image and its mask under their names."""
    if path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{key}.npy" for key in ROLE.values()} <= set(archive.namelist())
    except DAMAGED:
        return False


def _header(path: Path, stored: _Stored) -> Header:
    dtype = stored.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ImageError(path, f"holds {dtype}, no single number per voxel", "save an array of numbers")
    wider = {"b1": np.uint8, "f2": np.float32}.get(dtype.str[1:])
    dtype = np.dtype(wider) if wider is not None else dtype.newbyteorder("=")
    shape, channels = stored.shape, 1
    if len(shape) >= 3 and shape[0] == 1:
        shape = shape[1:]
    elif len(shape) == 4 or (len(shape) == 3 and shape[-1] in (1, 3)):
        shape, channels = shape[:-1], shape[-1]
    if len(shape) not in (2, 3) or min(stored.shape) < 1:
        raise ImageError(path, f"an array of shape {stored.shape} is no 2D or 3D image")
    doubts = (NO_SPACING,) if stored.spacing is None and len(shape) == 3 else ()
    spacing = stored.spacing if stored.spacing is not None else (1.0,) * len(shape)
    if len(spacing) != len(shape) or not np.isfinite(spacing).all() or min(spacing) <= 0:
        raise ImageError(path, f"spacing {list(spacing)} is not {len(shape)} positive numbers")
    affine = np.diag([*spacing, *[1.0] * (4 - len(shape))])
    return Header(shape, affine, dtype, channels, doubts)


def _stored(path: Path, mask: bool) -> _Stored:
    size = require_regular(path)
    try:
        if path.suffix.lower() == ".npy":
            with _entry(path, None) as file:
                shape, dtype = _head(file)
                length = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.kind != "O":
                    require_plausible(path, length + file.tell(), size, compressed=False)
            return _Stored(None, shape, dtype, None)
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            spacing = _spacing(path, archive) if "spacing" in arrays else None
            key = _key(path, [name for name in arrays if name != "spacing"], ROLE[mask])
            info = arrays[key]
            with archive.open(info) as file:
                shape, dtype = _head(file)
            require_plausible(path, info.file_size, info.compress_size, compressed=info.compress_type != 0)
            if dtype.kind != "O" and int(np.prod(shape, dtype=object)) * dtype.itemsize > info.file_size:
                raise ImageError(path, f"array {key} is larger than its entry (truncated or a broken header)", AGAIN)
        return _Stored(info.filename, shape, dtype, spacing)
    except DAMAGED as error:
        fault = f"not a NumPy file that can be read: truncated or corrupt ({error})"
        raise ImageError(path, fault, AGAIN) from None


def _key(path: Path, keys: list[str], role: str) -> str:
    if role in keys:
        return role
    if len(keys) == 1:
        return keys[0]
    raise ImageError(path, f"has no array {role!r} among {', '.join(keys) or 'none'}", f"name one of them {role!r}")


def _spacing(path: Path, archive: zipfile.ZipFile) -> tuple[float, ...]:
    info = archive.getinfo("spacing.npy")
    if info.file_size > 1 << 16:
        raise ImageError(path, "its spacing is no list of a few numbers")
    with archive.open(info) as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    return tuple(float(value) for value in np.ravel(values)[:4])


def _head(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an .npy declares."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = read[version](file)
    return tuple(int(length) for length in shape), dtype


@contextmanager
def _entry(path: Path, name: str | None) -> Iterator[IO[bytes]]:
    if name is None:
        with path.open("rb") as plain:
            yield plain
        return
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        yield file
