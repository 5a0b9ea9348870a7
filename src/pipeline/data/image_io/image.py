"""An image in memory, its header, and the checks that every format shares."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Protocol
from zipfile import BadZipFile

import numpy as np

from pipeline.errors import UserError

DEFLATE_RATIO = 1032  # no deflate stream grows by more (zlib, technical details)
SMALL = 1 << 26  # bytes that are allocated without a look at the free memory
MOST_RATIO = 200  # bytes for each byte of a compressed file, where it unpacks to more than:
MOST_WHOLE = 3 << 28  # bytes of a file that is read as a whole
MOST_STREAMED = 1 << 32  # bytes of a file that is read in a stream
HOLE = 1 << 30  # bytes never written, where they are most of a file
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK and DICOM to NIfTI
LFS_POINTER = b"version https://git-lfs"

DAMAGED = (  # what libraries raise when a file is not what it says
    ValueError,
    OSError,
    EOFError,
    SyntaxError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
    TokenError,
    BadZipFile,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


class ImageError(UserError):
    """An image file that cannot be used: ``path``, ``fault`` (without the path) and remedies."""

    def __init__(self, path: Path, fault: str, *remedies: str) -> None:
        super().__init__(f"{path}: {fault}", *remedies)
        self.path = path
        self.fault = fault


class Digest(Protocol):
    """A hash that is fed with the bytes of a file as they are read."""

    def update(self, data: bytes, /) -> None: ...


@dataclass(frozen=True)
class Header:
    """What an image file says about itself.

    ``shape``: spatial, in voxels. ``affine``: (4, 4) float64, voxel index -> world, RAS+ in mm; identity where
    the format knows no space (PNG, JPEG, NPZ). ``dtype``: of the voxels after rescaling. ``doubts``: what is
    legal but may be wrong, one line each.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    dtype: np.dtype[np.generic]
    channels: int
    doubts: tuple[str, ...] = ()

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each array axis, in mm (1 where the format knows no space)."""
        return spacing_of(self.affine, self.spatial_dims)

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels in memory."""
        voxels = self.channels
        for size in self.shape:
            voxels *= size
        return voxels * self.dtype.itemsize


@dataclass(frozen=True)
class Image:
    """``array``: (C, *spatial) in its native type. ``affine``: (4, 4) float64, voxel index -> world, RAS+ in mm.

    Rows and columns of 2D pictures are ``array[c, row, column]``; axes of volumes are those of the affine.
    """

    array: np.ndarray
    affine: np.ndarray
    spatial_dims: int

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each array axis, in mm."""
        return spacing_of(self.affine, self.spatial_dims)


def spacing_of(affine: np.ndarray, spatial_dims: int) -> tuple[float, ...]:
    """Lengths of the affine's columns, in mm."""
    return tuple(float(length) for length in np.sqrt((affine[:3, :spatial_dims] ** 2).sum(axis=0)))


def require_regular(path: Path, *, opened: bool = True) -> int:
    """Size in bytes of a file that can be read; raises ImageError for all else.

    A pipe would block for ever when opened, so this looks before it opens. ``opened``: also open it and see whether
    it is a Git LFS pointer.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise ImageError(path, f"the link leads to a missing file ({path.readlink()})") from None
        raise ImageError(path, "file not found (missing)") from None
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror or error} (link loop or no permission)") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise ImageError(path, f"is {kind}, not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "the file is empty (0 bytes)", "copy or download it again")
    if not opened:
        return status.st_size
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror or error}") from None
    require_no_pointer(path, start)
    return status.st_size


def require_no_pointer(path: Path, start: bytes) -> None:
    """Raise ImageError where the first bytes of a file are those of a Git LFS pointer."""
    if start.startswith(LFS_POINTER):
        raise ImageError(path, "is a Git LFS pointer, not the image", "run `git lfs pull` where it came from")


def require_plausible(path: Path, nbytes: int, file_size: int, compressed: bool, *, streamed: bool = False) -> None:
    """Raise ImageError where a file of ``file_size`` bytes cannot hold the ``nbytes`` that its header declares.

    Nor may it unpack to gigabytes from next to nothing, or have a hole in the place of most of its voxels.
    ``streamed``: the file is never in memory as a whole.
    """
    limit = file_size * (DEFLATE_RATIO if compressed else 1)
    if nbytes > limit:
        raise ImageError(
            path,
            f"the header declares {nbytes:,} bytes of voxels, too large for a file of {file_size:,} bytes "
            "(truncated or a broken size in the header)",
            "copy or download it again",
        )
    if compressed and nbytes > MOST_RATIO * file_size and nbytes > (MOST_STREAMED if streamed else MOST_WHOLE):
        raise ImageError(
            path,
            f"too large: it unpacks to {nbytes:,} bytes, {nbytes // file_size} times its size (ratio)",
            "copy it again; if it is right, save it uncompressed or in a smaller data type",
        )
    if not compressed and file_size > HOLE:
        _require_written(path, file_size)


def _require_written(path: Path, file_size: int) -> None:
    """Raise ImageError where most of a file was never written: disks give zeros for that, gigabytes in no time."""
    if not hasattr(os, "SEEK_HOLE"):
        return
    with path.open("rb") as file:
        at = 0
        while at < file_size:
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            if hole >= file_size:
                return
            try:
                at = os.lseek(file.fileno(), hole, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                at = file_size
            if at - hole > max(HOLE, file_size // 2):
                fault = f"{at - hole:,} of its {file_size:,} bytes were never written (sparse): truncated, size kept"
                raise ImageError(path, fault, "copy or download it again")


def require_memory(path: Path, nbytes: int) -> None:
    """Raise ImageError where the voxels would not fit into the memory that is free."""
    if nbytes < SMALL:
        return
    import psutil

    available = int(psutil.virtual_memory().available)
    if nbytes > available:
        raise ImageError(path, f"needs {nbytes / 2**30:.1f} GiB of memory; {available / 2**30:.1f} GiB are free")
