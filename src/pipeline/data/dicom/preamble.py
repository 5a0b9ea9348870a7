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
BARE = (b"\x08\x00", b"\x02\x00")  # first group of files without a preamble, little endian
SYNTAX_TAG = b"\x02\x00\x10\x00UI"
DEFLATED = b"1.2.840.10008.1.2.1.99"
LARGEST_DEFLATED = 1 << 28  # bytes that a deflated data set may unpack to


def looks_like_dicom(path: Path, status: os.stat_result) -> bool:
    """Whether a file begins as DICOM does, with or without the preamble.

    Raises ValueError for a deflated data set that would fill the memory (pydicom unpacks it whole), OSError.
    """
    if not stat.S_ISREG(status.st_mode) or status.st_size < 16:
        return False
    with path.open("rb") as file:
        start = file.read(OFFSET + 4)
        if start[OFFSET:] == MAGIC:
            meta = file.read(START)
            if len(meta) == START and SYNTAX_TAG not in meta:
                raise ValueError(f"no transfer syntax in its first {START >> 10} KiB")
            if DEFLATED in meta:
                file.seek(0)
                _require_bounded(file.read(), meta)
            return True
    # without a preamble the first element is of group 2 or 8, below 0x100; then comes a VR or a length
    if start[:2] not in BARE or start[3] != 0:
        return False
    length = int.from_bytes(start[4:8], "little")
    return (start[4:6].isalpha() and start[4:6].isupper()) or length <= min(status.st_size, 1024)


class Bounded:
    """A file that refuses to read values longer than ``limit`` bytes, and never asks for more than it holds."""

    def __init__(self, file: BinaryIO, size: int, limit: int) -> None:
        self.file, self.size, self.limit = file, size, limit
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        self.name = file.name

    def read(self, count: int = -1) -> bytes:
        """At most ``count`` bytes; raises ValueError where they are more than the limit."""
        left = max(0, self.size - self.tell())
        wanted = left if count < 0 else min(count, left)
        if wanted > self.limit:
            raise ValueError(f"a value of {wanted:,} bytes in its header")
        return self.file.read(wanted)


@contextmanager
def bounded(path: Path, limit: int) -> Iterator[Bounded]:
    """Open a file for pydicom so that a broken length cannot fill the memory."""
    with path.open("rb") as file:
        yield Bounded(file, path.stat().st_size, limit)


def _require_bounded(content: bytes, meta: bytes) -> None:
    """The deflated stream begins behind the file meta information, whose length its first element tells."""
    if meta[:4] != b"\x02\x00\x00\x00":
        raise ValueError("its deflated data set begins at an unknown place")
    begin = OFFSET + 4 + 12 + int.from_bytes(meta[8:12], "little")
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
