"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: read in a stream, so that memory stays bounded.

The affine follows nibabel: sform if its code is set, else qform, else the spacing alone.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.image_io.image import (
    Digest,
    Header,
    ImageError,
    require_no_pointer,
    require_plausible,
    require_regular,
)
from pipeline.data.image_io.nifti_affine import affine_of, geometry

VERSIONS = {struct.pack(order + "i", size): (size, order) for size in (348, 540) for order in "<>"}  # by first bytes
HEADER = 540  # bytes of the longer of the two headers
READ = 1 << 18  # bytes read from disk at once
BLOCK = 1 << 20  # bytes decompressed at once: small enough for the processor's cache
TRAILING = 1 << 26  # bytes tolerated behind the voxels
GZIP = b"\x1f\x8b"
AGAIN = "copy or download it again"


def read_header(path: Path) -> Header:
    """Header of a NIfTI file; of a gzipped one no more than its first kilobytes are decompressed."""
    size = require_regular(path, opened=False)
    with closing(_Opened(path, 4096)) as file, closing(_bytes(file, None, 4096, [])) as stream:
        return _parse(file, size, _take(stream, HEADER, b""))[0]


def read_blocks(
    path: Path, digest: Digest | None = None, doubts: list[str] | None = None
) -> tuple[Header, Iterator[np.ndarray]]:
    """Header, and all voxels in file order (first axis fastest, channels slowest) as flat arrays.

    Exhausting the iterator proves the file whole: checksum and length are verified. ``digest`` is fed with the
    bytes of the file; to ``doubts`` is added what turns out to be odd behind the voxels. Raises ImageError.
    """
    doubts = [] if doubts is None else doubts
    size = require_regular(path, opened=False)
    file = _Opened(path, READ)
    stream = _bytes(file, digest, BLOCK, doubts)
    start = _take(stream, HEADER, b"")
    header, stored, offset, slope, inter = _parse(file, size, start)
    return header, _voxels(path, stream, start, header, stored, offset, slope, inter, doubts)


class _Opened:
    """A file that is read once from its start, ``count`` bytes at a time; closed at its end."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        try:
            self.file = path.open("rb", buffering=0)
            self.first = self.file.read(count) or b""
        except OSError as error:
            raise ImageError(path, f"cannot be read: {error.strerror or error}") from None
        self.gzipped = self.first.startswith(GZIP)

    def __iter__(self) -> Iterator[bytes]:
        data = self.first
        with self.file:
            while data:
                yield data
                data = self.file.read(self.count) or b""

    def close(self) -> None:
        self.file.close()


def _bytes(file: _Opened, digest: Digest | None, limit: int, doubts: list[str]) -> Generator[bytes, None, None]:
    """The decompressed bytes of a file, block by block; raises ImageError when it is damaged."""
    path = file.path
    inflate = zlib.decompressobj(31)
    foreign = False  # something else follows the last member
    for data in file:
        if digest is not None:
            digest.update(data)
        if not file.gzipped:
            yield data
            continue
        more = not foreign
        while more:
            if inflate.eof:  # a further member of the same gzip file, or padding
                data = data.lstrip(b"\0")
                if not data:
                    break
                if not GZIP.startswith(data[:2]):
                    foreign = True
                    doubts.append("bytes that are not gzip follow its end; they are ignored")
                    break
                inflate = zlib.decompressobj(31)
            try:
                block = inflate.decompress(data, limit)
            except zlib.error as error:
                raise ImageError(path, f"corrupt: its gzip data are invalid ({error})", AGAIN) from None
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            # a full block may leave output pending although all input is consumed
            more = bool(data) or (len(block) == limit and not inflate.eof)
            if block:
                yield block
    if file.gzipped and not inflate.eof:
        raise ImageError(path, "truncated: the gzip stream ends early", AGAIN)


def _take(stream: Iterator[bytes], count: int, held: bytes) -> bytes:
    """At least ``count`` bytes from the stream where there are so many."""
    parts = [held]
    have = len(held)
    while have < count and (part := next(stream, None)) is not None:
        parts.append(part)
        have += len(part)
    return b"".join(parts)


def _parse(file: _Opened, file_size: int, start: bytes) -> tuple[Header, np.dtype[np.generic], int, float, float]:
    """Header, stored type, offset of the voxels, slope and intercept."""
    path = file.path
    require_no_pointer(path, start)
    version, order = VERSIONS.get(start[:4], (0, "<"))
    if not version or len(start) < version:
        raise ImageError(path, "not a NIfTI file: its header is not recognised (bad magic or too short)", AGAIN)
    raw = np.frombuffer(start, _layout(version, order), 1)[0]
    magic = bytes(raw["magic"])[:3]
    if magic not in (b"n+1", b"n+2"):
        split = magic in (b"ni1", b"ni2")
        raise ImageError(path, "a NIfTI header without voxels (.hdr/.img pair)" if split else "not NIfTI: bad magic")

    dims = raw["dim"].tolist()
    sizes = dims[1 : dims[0] + 1] if 1 <= dims[0] <= 7 else []
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if not 2 <= len(sizes) <= 4 or min(sizes) < 1:
        raise ImageError(path, f"dimensions {sizes or dims} are not those of a 2D or 3D image with channels")
    shape, channels = tuple(sizes[:3]), sizes[3] if len(sizes) == 4 else 1

    stored = _stored(int(raw["datatype"]), order)
    if stored is None:
        raise ImageError(path, f"unknown data type code {int(raw['datatype'])}")
    if stored.fields is not None or stored.kind not in "iuf" or stored.itemsize > 8:
        name = "RGB colour" if stored.fields is not None else str(stored)
        raise ImageError(path, f"data type {name} is no single number per voxel", "convert it to numbers")

    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if np.isinf(slope):
        raise ImageError(path, f"intensity slope scl_slope is {slope}, not a finite number")
    if slope == 0 or np.isnan(slope):
        slope, inter = 1.0, 0.0
    if not np.isfinite(inter):
        raise ImageError(path, f"intensity offset scl_inter is {inter}, not a finite number")
    scaled = (slope, inter) != (1.0, 0.0)
    dtype = stored.newbyteorder("=")
    if scaled:
        dtype = np.dtype(np.float32 if stored.itemsize <= 2 or stored == np.float32 else np.float64)

    offset = float(raw["vox_offset"])
    if not version <= offset < 2**31 or offset != int(offset):
        raise ImageError(path, f"offset of the voxels (vox_offset) is {offset:g}, not a place behind the header")
    affine, doubts, fault = affine_of(geometry(start, version), version)
    if affine is None:
        raise ImageError(path, fault, "write the header again with a valid affine in mm")
    if slope < 0:
        doubts = (*doubts, f"intensity slope scl_slope is {slope:g}: bright and dark are exchanged")
    header = Header(shape, affine.copy(), dtype, channels, doubts)
    nbytes = header.nbytes // dtype.itemsize * stored.itemsize
    require_plausible(path, nbytes + int(offset), file_size, file.gzipped, streamed=True)
    return header, stored, int(offset), slope, inter


@cache
def _layout(version: int, order: str) -> np.dtype[np.void]:
    import nibabel as nib

    layout: Any = nib.nifti1.header_dtype if version == 348 else nib.nifti2.header_dtype
    found: np.dtype[np.void] = layout.newbyteorder(order)
    return found


@cache
def _stored(code: int, order: str) -> np.dtype[np.generic] | None:
    import nibabel as nib

    codes: Any = nib.nifti1.data_type_codes
    return np.dtype(codes.dtype[code]).newbyteorder(order) if code in codes.code else None


def _voxels(
    path: Path,
    stream: Iterator[bytes],
    held: bytes,
    header: Header,
    stored: np.dtype[np.generic],
    offset: int,
    slope: float,
    inter: float,
    doubts: list[str],
) -> Iterator[np.ndarray]:
    left = whole = header.channels * int(np.prod(header.shape)) * stored.itemsize
    rest = _take(stream, offset, held)[offset:]
    trailing, foreign = 0, False
    while True:
        usable_bytes = min(len(rest), left) // stored.itemsize * stored.itemsize
        if usable_bytes:
            left -= usable_bytes
            block = np.frombuffer(rest, stored, usable_bytes // stored.itemsize).astype(header.dtype, copy=False)
            if (slope, inter) != (1.0, 0.0):
                block = block * header.dtype.type(slope) + header.dtype.type(inter)
            yield block
        rest = rest[usable_bytes:]
        if left == 0:
            foreign = foreign or bool(rest.strip(b"\0"))
            trailing += len(rest)
            rest = b""
            if trailing > TRAILING:
                raise ImageError(path, f"more than {TRAILING >> 20} MiB follow the voxels that the header declares")
        following = next(stream, None)
        if following is None:
            break
        rest = rest + following if rest else following
    if left:
        raise ImageError(path, f"truncated: {left:,} bytes of voxels fewer than the header's size expects", AGAIN)
    slice_bytes = whole // (header.channels * header.shape[-1])
    if foreign or (trailing and trailing % slice_bytes == 0):
        doubts.append(f"{trailing:,} bytes follow the voxels that the header declares: is its size right?")
