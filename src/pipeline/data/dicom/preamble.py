"""Whether a file is DICOM, from its first bytes, and whether it is safe to parse."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

START = 1 << 16  # bytes looked at: preamble and file meta information
OFFSET = 128
MAGIC = b"DICM"
NAMED = (".dcm", ".dicom", ".ima")
BARE = (b"\x08\x00", b"\x02\x00")  # first group of files without a preamble, little endian
SYNTAX_TAG = b"\x02\x00\x10\x00UI"
DEFLATED = b"1.2.840.10008.1.2.1.99"
LARGEST_DEFLATED = 1 << 28  # bytes that a deflated data set may unpack to


def looks_like_dicom(path: Path, status: os.stat_result) -> bool:
    """Whether a file begins as DICOM does, with or without the preamble.

    Raises OSError, and ValueError for a file that is named like DICOM and empty, and for a deflated data set that
    would fill the memory (pydicom unpacks it whole).
    """
    if not stat.S_ISREG(status.st_mode) or path.name.startswith("._"):  # what macOS leaves beside files
        return False
    with path.open("rb") as file:
        start = file.read(OFFSET + 4)
        if not start.strip(b"\0") and path.suffix.lower() in NAMED:
            raise ValueError("named like DICOM, and its beginning is empty")
        bare = start[:2] in BARE and start[3] == 0
        meta = file.read(START) if bare or start[OFFSET:] == MAGIC else b""
        if start[OFFSET:] == MAGIC:
            if len(meta) == START and SYNTAX_TAG not in meta:
                raise ValueError(f"no transfer syntax in its first {START >> 10} KiB")
            if DEFLATED in meta:
                file.seek(0)
                _require_bounded(file.read(LARGEST_DEFLATED), meta)
            return True
    # without a preamble the first element is of group 2 or 8, below 0x100; then comes a VR or a length
    if not bare:
        return False
    length = int.from_bytes(start[4:8], "little")
    found = (start[4:6].isalpha() and start[4:6].isupper()) or length <= min(status.st_size, 1024)
    if found and DEFLATED in meta:
        raise ValueError("its data set is deflated and it has no preamble")
    return found


class Bounded:
    """A file that refuses to read values longer than ``limit`` bytes, and never asks for more than it holds."""

    def __init__(self, file: BinaryIO, size: int, limit: int) -> None:
        self.file, self.size, self.limit = file, size, limit
        self.whole = _deflated_from(file, size)  # where pydicom reads all that is left
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        self.name = file.name

    def read(self, count: int = -1) -> bytes:
        """At most ``count`` bytes; raises ValueError where they are more than the limit."""
        left = max(0, self.size - self.tell())
        wanted = left if count < 0 else min(count, left)
        if wanted > self.limit and self.tell() != self.whole:
            raise ValueError(f"a value of {wanted:,} bytes in its header")
        return self.file.read(wanted)


@contextmanager
def bounded(path: Path, limit: int) -> Iterator[Bounded]:
    """Open a file for pydicom so that a broken length cannot fill the memory."""
    with path.open("rb") as file:
        yield Bounded(file, path.stat().st_size, limit)


def _deflated_from(file: BinaryIO, size: int) -> int:
    """Where the deflated part of a file begins, which looks_like_dicom has found to be small enough; else -1."""
    start = file.read(min(size, START))
    file.seek(0)
    return _begin(start[OFFSET + 4 :]) if DEFLATED in start else -1


def _begin(meta: bytes) -> int:
    return OFFSET + 4 + 12 + int.from_bytes(meta[8:12], "little")


def _require_bounded(content: bytes, meta: bytes) -> None:
    """The deflated stream begins behind the file meta information, whose length its first element tells."""
    if meta[:4] != b"\x02\x00\x00\x00":
        raise ValueError("its deflated data set begins at an unknown place")
    begin = _begin(meta)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    total, data = 0, content[begin:]
    while data and not inflate.eof:
        try:
            total += len(inflate.decompress(data, 1 << 20))
        except zlib.error as error:
            raise ValueError(f"its deflated data set is damaged ({error})") from None
        data = inflate.unconsumed_tail
        if total > LARGEST_DEFLATED:
            raise ValueError(f"its deflated data set unpacks to more than {LARGEST_DEFLATED >> 20} MiB")
