"""What stands in a .zip, .tar or .tar.gz, member by member, read once and never beyond the limits."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from pipeline.errors import UserError

BLOCK = 1 << 20  # bytes copied at once


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most: entries, bytes, and bytes for each byte of the archive beyond ``slack`` bytes.

    Images shrink tenfold at best and masks a hundredfold; bombs grow a thousandfold and more.
    """

    entries: int = 500_000
    size: int = 1 << 40
    ratio: float = 200
    slack: int = 1 << 26


LIMITS = Limits()


Members = Iterator[tuple[str, bool, IO[bytes] | None]]
"""Name, whether it is a folder, and the content of a file."""


def zip_members(archive: Path, limits: Limits) -> Members:
    size = archive.stat().st_size
    _require_directory(archive, limits)
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        total = sum(info.file_size for info in infos)
        _require_size(archive, total, size, limits)
        free = shutil.disk_usage(archive.parent).free
        if total > max(free, limits.slack):
            raise too_large(archive, f"unpacks to {total:,} bytes; {free:,} are free")
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if "\0" in info.orig_filename or not info.filename:
                raise unsafe(archive, info.orig_filename, "holds a character that is not allowed in a file name")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise unsafe(archive, info.filename, "is a link or a device, no file")
            if info.flag_bits & 0x41:
                raise unsafe(archive, info.filename, "is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise unsafe(archive, info.filename, f"uses compression method {info.compress_type}, not supported")
            if info.is_dir():
                yield info.filename, True, None
                continue
            with opened.open(info) as content:  # never gives more than file_size, and verifies the checksum
                yield info.filename, False, content


def _require_directory(archive: Path, limits: Limits) -> None:
    """Refuse a list of members that would fill the memory: zipfile reads it whole."""
    with archive.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 16) - 100))
        tail = file.read()
    length = 0
    for mark, place, form in ((b"PK\5\6", 12, "<I"), (b"PK\6\6", 40, "<Q")):  # the second for large archives
        at = tail.find(mark)
        while at >= 0:
            if at + place + struct.calcsize(form) <= len(tail):
                said = int(struct.unpack_from(form, tail, at + place)[0])
                length = max(length, said if said != 0xFFFFFFFF else 0)
            at = tail.find(mark, at + 1)
    if length > limits.entries * 128:
        raise too_large(archive, f"its list of members takes {length:,} bytes")


def tar_members(archive: Path, limits: Limits) -> Members:
    with archive.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Forward(archive, gzip.GzipFile(fileobj=file) if gzipped else file, limits)
        with tarfile.open(fileobj=cast(Any, stream), mode="r:") as opened:
            while (member := opened.next()) is not None:
                cast(Any, opened).members.clear()  # tarfile keeps them all
                if member.isdir():
                    yield member.name, True, None
                    continue
                if member.issym() or member.islnk():
                    raise unsafe(archive, member.name, f"is a link (to {member.linkname})")
                if not member.isreg() or member.issparse():
                    raise unsafe(archive, member.name, "is a device, a pipe or a sparse file, no plain file")
                stream.require(member.size)
                content = opened.extractfile(member)
                assert content is not None
                yield member.name, False, content
                if stream.tell() < member.offset_data + member.size:
                    raise EOFError(f"{member.name} ends early")
        while stream.read(BLOCK):  # the checksum of gzip stands at its end
            pass


class _Forward:
    """A file that is read from its start to its end once, and never further than the limits allow."""

    def __init__(self, archive: Path, stream: IO[bytes] | gzip.GzipFile, limits: Limits) -> None:
        self.archive = archive
        self.stream = stream
        self.limits = limits
        self.size = archive.stat().st_size
        self.at = 0

    def read(self, count: int) -> bytes:
        if count > 4 * BLOCK:  # names are read at once, and may be said to have gigabytes
            raise too_large(self.archive, f"an entry's name takes {count:,} bytes")
        self.require(0)
        data = self.stream.read(count)
        self.at += len(data)
        return data

    def require(self, more: int) -> None:
        """Refuse to go on where ``more`` bytes would pass the limits."""
        _require_size(self.archive, self.at + more, self.size, self.limits)

    def seek(self, place: int) -> None:
        while self.at < place and self.read(min(BLOCK, place - self.at)):
            pass

    def tell(self) -> int:
        return self.at


def _require_size(archive: Path, total: int, size: int, limits: Limits) -> None:
    if total > limits.size:
        raise too_large(archive, f"unpacks to more than {limits.size:,} bytes")
    if total > limits.slack and total > limits.ratio * size:
        raise too_large(archive, f"unpacks to more than {limits.ratio:g} times its size of {size:,} bytes (ratio)")


def too_large(archive: Path, fault: str) -> UserError:
    """The mistake of an archive beyond the limits."""
    return UserError(f"{archive}: too large: {fault}", "if you trust it, unpack it yourself and name the folder")


def unsafe(archive: Path, member: str, fault: str) -> UserError:
    """The mistake of a member that is not unpacked."""
    return UserError(f"{archive}: unsafe member {member!r} {fault}", "take it out, or use an archive you trust")
