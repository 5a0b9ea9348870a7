"""Archives unpacked without trust in them: .zip, .tar and .tar.gz, all or nothing."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import tarfile
import unicodedata
import uuid
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.data.archive_members import BLOCK, LIMITS, Limits, tar_members, too_large, unsafe, zip_members
from pipeline.errors import UserError

__all__ = ["LIMITS", "Limits", "extract", "is_archive", "stem_of_archive"]

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
DAMAGED = (
    gzip.BadGzipFile,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RecursionError,
)


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of_archive(path: Path) -> str:
    """The file name without the suffix of an archive."""
    return next((path.name[: -len(end)] for end in SUFFIXES if path.name.lower().endswith(end)), path.name)


def extract(archive: Path, target: Path, limits: Limits = LIMITS) -> None:
    """Unpack ``archive`` as the new folder ``target``; where all lies in one folder, that folder becomes ``target``.

    Refuses absolute paths and those that climb out, links and devices, names that stand twice or differ only in case,
    encrypted members, and more than the limits. Times and permissions of the archive are not taken over. ``target``
    appears whole or not at all. Raises UserError with the archive and the member.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive")
    if target.exists():
        raise UserError(f"{target}: exists already; {archive.name} is not unpacked over it")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        names = _Names(archive, partial, limits)
        with archive.open("rb") as file:
            members = (zip_members if file.read(2) == b"PK" else tar_members)(archive, limits)
        for name, folder, content in members:
            path = names.place(name, folder)
            if content is not None:
                with path.open("xb") as out:
                    shutil.copyfileobj(content, out, BLOCK)
        if not names.taken:
            raise UserError(f"{archive}: holds nothing")
        os.sync()  # once for all files: what the rename shows must be on disk
        _only_folder(partial).rename(target)
    except DAMAGED as error:
        fault = f"{archive}: damaged or no archive ({str(error) or type(error).__name__})"
        raise UserError(fault, "copy or download it again") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {target.parent} ({error.strerror or error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _only_folder(folder: Path) -> Path:
    """The one folder in ``folder`` where nothing else is there but hidden entries, else ``folder`` itself."""
    visible = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return visible[0] if len(visible) == 1 and visible[0].is_dir() else folder


class _Names:
    """The places that members have taken so far, and the rules for new ones."""

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self.archive = archive
        self.folder = folder
        self.limits = limits
        self.count = 0
        self.taken: dict[str, tuple[str, bool]] = {}

    def place(self, name: str, folder: bool) -> Path:
        """Where a member goes; its folder is made. Raises UserError."""
        self.count += 1
        if self.count > self.limits.entries:
            raise too_large(self.archive, f"more than {self.limits.entries:,} entries")
        relative = self._relative(name)
        if relative is None:  # the archive's own top, "./"
            return self.folder
        for parent in [path for path in reversed(relative.parents) if path.parts]:
            self._take(parent, True, name)
        self._take(relative, folder, name)
        path = self.folder / relative
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
        return path

    def _relative(self, name: str) -> PurePosixPath | None:
        path = PurePosixPath(name)
        if path.is_absolute() or PureWindowsPath(name).drive:
            raise unsafe(self.archive, name, "is an absolute path")
        if ".." in path.parts:
            raise unsafe(self.archive, name, "leads outside (../)")
        if "\\" in name or any(unicodedata.category(letter) == "Cc" for letter in name):
            raise unsafe(self.archive, name, "holds a character that is not allowed in a file name")
        return path if path.parts else None

    def _take(self, path: PurePosixPath, folder: bool, name: str) -> None:
        exact = str(path)
        key = unicodedata.normalize("NFC", exact).casefold()
        if key not in self.taken:
            self.taken[key] = (exact, folder)
            return
        before, was_folder = self.taken[key]
        if before != exact:
            raise unsafe(self.archive, name, f"collides with {before}: they differ only in case or in form")
        if was_folder != folder:
            raise unsafe(self.archive, name, f"collides with {before}: one is a folder and the other a file")
        if not folder:
            raise unsafe(self.archive, name, "stands twice (duplicate)")
