"""Images that stand in an array of an .npz file, one along the first axis: (N, *spatial) or (N, *spatial, C)."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.data.image_io.image import DAMAGED, Header, ImageError, require_memory, require_plausible, require_regular


def read_array(path: Path, key: str) -> np.ndarray:
    """A whole array, (N, C, *spatial), read-only. The last ones read are kept in memory. Raises ImageError."""
    require_regular(path)
    status = path.stat()
    return _load(path, key, status.st_size, status.st_mtime_ns)


def header_of(array: np.ndarray) -> Header:
    """Header of each image of an array (N, C, *spatial)."""
    return Header(array.shape[2:], np.eye(4), array.dtype, array.shape[1])


def read_keys(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an .npz. Raises ImageError."""
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise ImageError(path, f"not an .npz that can be read ({error})", "copy or download it again") from None


def load_array(path: Path, key: str) -> np.ndarray:
    """One array of an .npz as it stands there; raises ImageError. Objects (pickles) are refused."""
    keys = read_keys(path)
    if key not in keys:
        raise ImageError(path, f"has no array {key!r}; it has {', '.join(keys)}")
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{key}.npy")
            require_plausible(path, entry.file_size, path.stat().st_size, compressed=True)
            require_memory(path, entry.file_size)
            with archive.open(entry) as file:  # to its end: the checksum is verified there
                return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except DAMAGED as error:
        fault = f"array {key} cannot be read: truncated or corrupt ({error})"
        raise ImageError(path, fault, "copy or download it again") from None


@lru_cache(maxsize=4)
def _load(path: Path, key: str, size: int, mtime_ns: int) -> np.ndarray:
    array = load_array(path, key)
    if array.dtype.kind not in "biuf":
        raise ImageError(path, f"array {key} holds {array.dtype}, not numbers")
    if array.ndim in (4, 5) and array.shape[-1] in (1, 3):
        array = np.moveaxis(array, -1, 1)
    elif array.ndim in (3, 4):
        array = array[:, None]
    else:
        raise ImageError(path, f"array {key} of shape {array.shape} does not hold 2D or 3D images")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    array.setflags(write=False)
    return array
