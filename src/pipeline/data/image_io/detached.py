"""MetaImage and NRRD headers, whose voxels may lie in a file of their own: it must lie beside the header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.data.image_io.image import ImageError, require_regular

LONGEST = 1 << 16  # bytes of a header


@dataclass(frozen=True)
class Voxels:
    """Where the voxels lie: ``path`` (the header's own where they follow it), ``offset`` bytes from its start (None
    where that is not told), and whether they are compressed."""

    path: Path
    offset: int | None
    compressed: bool


def locate(path: Path) -> Voxels:
    """The voxels of an .mha, .mhd or .nrrd file; raises ImageError for those elsewhere or in several files."""
    require_regular(path)
    with path.open("rb") as file:
        start = file.read(LONGEST)
    return _nrrd(path, start) if path.name.lower().endswith(".nrrd") else _metaimage(path, start)


def _metaimage(path: Path, start: bytes) -> Voxels:
    fields: dict[str, str] = {}
    at = 0
    while "elementdatafile" not in fields:
        end = start.find(b"\n", at)
        if end < 0:
            raise ImageError(path, "no MetaImage header: it names no ElementDataFile", "copy or download it again")
        key, _, value = start[at:end].decode("latin-1").partition("=")
        fields[key.strip().casefold()] = value.strip()
        at = end + 1
    dims = fields.get("ndims", "")
    if dims not in ("2", "3", "4"):
        raise ImageError(path, f"NDims is {dims!r}; 2 or 3 dimensions are supported")
    compressed = fields.get("compresseddata", "").casefold() == "true"
    name = fields["elementdatafile"]
    if name.casefold() == "local":
        return Voxels(path, at, compressed)
    skipped = fields.get("headersize", "0")
    return Voxels(_beside(path, name), int(skipped) if skipped.isdecimal() else None, compressed)


def _nrrd(path: Path, start: bytes) -> Voxels:
    if not start.startswith(b"NRRD"):
        raise ImageError(path, "no NRRD header (bad magic)", "copy or download it again")
    head, mark, _ = start.replace(b"\r\n", b"\n").partition(b"\n\n")
    fields = {}
    for line in head.decode("latin-1").split("\n")[1:]:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields[key.strip().casefold()] = value.strip()
    compressed = fields.get("encoding", "").casefold() != "raw"
    name = fields.get("data file", fields.get("datafile"))
    if name is None:
        if not mark:
            raise ImageError(path, "its NRRD header has no end", "copy or download it again")
        return Voxels(path, start.find(b"\n\n") + 2 if b"\r\n\r\n" not in start else None, compressed)
    return Voxels(_beside(path, name), None, compressed)


def _beside(path: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    if name.split(" ")[0].casefold() == "list" or "%" in name:
        raise ImageError(path, f"its voxels lie in several files ({name})", "save them in one file")
    if relative.is_absolute() or PureWindowsPath(name).drive or ".." in relative.parts or not relative.parts:
        raise ImageError(path, f"its voxels lie outside of its folder ({name})", "move them beside the header")
    data = path.parent / relative
    try:
        require_regular(data)
    except ImageError as error:
        raise ImageError(path, f"its voxels in {name}: {error.fault}", *error.remedies) from None
    return data
