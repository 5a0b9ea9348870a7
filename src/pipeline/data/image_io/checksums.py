"""Checksums that Pillow and ITK pass over: a file that they decode without a word may be damaged all the same."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.image_io.detached import LONGEST, locate
from pipeline.data.image_io.image import ImageError

AGAIN = "copy or download it again"
PNG = b"\x89PNG\r\n\x1a\n"
READ = 1 << 20
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # of Adam7
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by PNG's colour type


def verify_volume(path: Path) -> None:
    """Verify the checksum of the compressed voxels of an NRRD, MHA or MHD file; raises ImageError."""
    if path.name.lower().endswith(".nrrd"):
        _nrrd(path)
    else:
        voxels = locate(path)
        if voxels.compressed and voxels.offset is not None:
            _inflate_all(voxels.path, voxels.offset, zlib.decompressobj(47))  # zlib or gzip


def verify_png(path: Path, content: bytes, *, count: bool = False) -> list[str]:
    """Verify the checksum of each chunk of a PNG file's content.

    ``count``: also count the pixels, which costs a second decompression. Returns what is legal but odd, one line each;
    raises ImageError where the file is damaged.
    """
    if not content.startswith(PNG):
        return []  # another format under this name; Pillow knows
    view, at = memoryview(content), len(PNG)
    inflate, pixels, header = zlib.decompressobj(), 0, b""
    while True:
        if at + 8 > len(content):
            raise ImageError(path, "truncated: it ends before its last chunk", AGAIN)
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            raise ImageError(path, f"truncated: its chunk {kind.decode('latin-1')} ends early", AGAIN)
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ImageError(path, f"corrupt: the checksum (CRC) of chunk {kind.decode('latin-1')} is wrong", AGAIN)
        if kind == b"IHDR":
            header = content[at + 8 : end]
        elif count and kind == b"IDAT" and not inflate.eof:
            pixels += sum(len(block) for block in _inflated(path, inflate, content[at + 8 : end]))
        at = end + 4
        if kind == b"IEND":
            break
    if count and len(header) == 13 and pixels < (expected := _png_bytes(header)):
        raise ImageError(path, f"truncated: it holds {pixels:,} of {expected:,} bytes of pixels", AGAIN)
    return ["bytes follow the end of the picture; they are ignored"] if at < len(content) else []


def _png_bytes(header: bytes) -> int:
    """Bytes of all filtered rows, as the header chunk has them."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * SAMPLES.get(colour, 1)
    total = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _nrrd(path: Path) -> None:
    encoding = ""
    with path.open("rb") as file:
        while (line := file.readline(LONGEST)).strip():
            name, _, value = line.decode("latin-1").partition(":")
            if name.strip().lower() == "encoding":
                encoding = value.strip().lower()
        start = file.tell()
    if encoding in ("gzip", "gz"):
        data = locate(path).path
        _inflate_all(data, start if data == path else 0, zlib.decompressobj(31))


def _inflate_all(path: Path, start: int, inflate: zlib._Decompress) -> None:
    with path.open("rb") as file:
        file.seek(start)
        while not inflate.eof and (data := file.read(READ)):
            for _ in _inflated(path, inflate, data):
                pass
    if not inflate.eof:
        raise ImageError(path, "truncated: its compressed voxels end early", AGAIN)


def _inflated(path: Path, inflate: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What ``data`` decompresses to, in small blocks; a wrong checksum is an ImageError."""
    while data:
        try:
            block = inflate.decompress(data, READ)
        except zlib.error as error:
            raise ImageError(path, f"corrupt: its compressed data are invalid ({error})", AGAIN) from None
        yield block
        if inflate.eof or not (block or inflate.unconsumed_tail):
            return
        data = inflate.unconsumed_tail
