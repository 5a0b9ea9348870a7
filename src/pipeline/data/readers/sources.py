"""Where the files of a case lie and what its names may be: the rules that all readers share."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from pipeline.data.case import Case
from pipeline.data.image_io import ImageError, read_header
from pipeline.errors import UserError, UserErrors

PROBED = 5  # cases whose headers tell what the data set is made of
SHOWN = 20  # mistakes listed in full
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npz")


def require_root(root: str | Path | None, key: str = "data.root") -> Path:
    """The folder of a data set, absolute; raises UserError with the nearest existing names where it is missing."""
    if root is None or not str(root):
        raise UserError(f"{key} is not set", f"name the folder of the data: {key}=FOLDER")
    path = Path(root).expanduser().absolute()
    if not path.exists():
        parent = next(folder for folder in path.parents if folder.is_dir())
        missing = path.relative_to(parent).parts[0]
        names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
        near = nearest(missing, names)
        raise UserError(
            f"{key}={root}: folder not found; {parent} has no {missing}",
            f"did you mean {parent / near[0]}?" if near else f"name the folder of the data: {key}=FOLDER",
        )
    if not path.is_dir():
        raise UserError(
            f"{key}={root}: is a file, neither a folder nor an archive that can be unpacked (.zip, .tar, .tar.gz)",
            f"unpack it yourself and name the folder: {key}=FOLDER",
        )
    return path


def require_file(root: Path, name: str, key: str) -> Path:
    """A file inside ``root``; raises UserError with the nearest existing names where it is missing."""
    path = inside(root, name, key)
    if not path.is_file():
        names = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        near = nearest(path.name, names)
        remedy = f"did you mean {near[0]}?" if near else f"{path.parent} holds {listed(names)}"
        raise UserError(f"{path}: file not found ({key})", remedy)
    return path


def inside(root: Path, name: str, origin: str, *, allow_outside: bool | None = None) -> Path:
    """The path of a name that a data set gives, relative to its root.

    Raises UserError for absolute paths and those that climb out, unless ``allow_outside`` (None: the format has no such
    choice): a data set must not name foreign files.
    """
    if "\0" in name or not name.strip() or not _writable(name):
        raise UserError(f"{origin}: {name!r} is no file name")
    if allow_outside:
        return root / name
    choice = () if allow_outside is None else ("if you trust the list: data.allow_outside=true",)
    if name.startswith(("/", "\\\\")) or (name[1:2] == ":" and name[0].isalpha()):  # a drive of Windows too
        raise UserError(
            f"{origin}: {name} is an absolute path, which is not allowed",
            f"write it relative to {root}",
            *choice,
        )
    if ".." in name and ".." in PurePosixPath(name).parts:
        raise UserError(
            f"{origin}: {name} leads outside {root} (../ is not allowed)",
            "move the file into the folder",
            *choice,
        )
    return root / name


def _writable(name: str) -> bool:
    """Whether the operating system can have a file of this name."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def case_id_fault(case_id: str) -> str | None:
    """Why a case id cannot be used, or None: ids become file names."""
    if not case_id.strip():
        return "case id is empty"
    if not case_id.isascii() and re.search(r"[\ud800-\udfff]", case_id):
        return f"case id {case_id!r} is not in UTF-8"
    if case_id in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", case_id):
        return f"case id {case_id!r} holds a character that is not allowed in a file name"
    if case_id != case_id.strip() or len(case_id.encode()) > 200:
        return f"case id {case_id!r} begins or ends with a space, or is longer than 200 bytes"
    return None


def require_case_ids(ids: Iterable[str], origin: str) -> None:
    """Raise UserError(s) for ids that are empty, no file name, or stand twice."""
    counts = Counter(ids)
    mistakes = [
        UserError(f"{origin}: {fault}", "name it otherwise") for case_id in counts if (fault := case_id_fault(case_id))
    ]
    mistakes += [
        UserError(f"{origin}: case {case_id} is listed {'twice' if count == 2 else f'{count} times'} (duplicate)")
        for case_id, count in counts.items()
        if count > 1
    ]
    raise_all(mistakes)


def raise_all(mistakes: Sequence[UserError]) -> None:
    """Raise what was found, if anything: one mistake as itself, several together."""
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        more = len(mistakes) - SHOWN
        rest = [UserError(f"... and {more} more of this kind")] if more > 0 else []
        raise UserErrors([*mistakes[:SHOWN], *rest])


def patient_finder(pattern: str | None) -> Callable[[str], str]:
    """A function from a name to the patient id: the pattern's first group, or the name itself. Raises UserError."""
    if pattern is None:
        return lambda name: name
    key = "data.patient_pattern"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"{key}={pattern}: no regular expression ({error})") from None
    if compiled.groups < 1:
        raise UserError(f"{key}={pattern}: has no group", "put the part that names the patient into ( )")

    def find(name: str) -> str:
        match = compiled.search(name)
        if match is None or not match.group(1):
            raise UserError(f"{key}={pattern}: does not match {name}", "change the expression, or set it to null")
        return match.group(1)

    return find


def probe(cases: Sequence[Case], modalities: Sequence[str] = ()) -> tuple[int, int]:
    """Spatial dimensions and input channels of most of the first cases, from headers alone.

    ``modalities``: those of the data set; cases that lack one tell nothing as long as there are others. Where no
    header can be read the file names decide; the integrity check will name what is wrong with them.
    """
    found: Counter[tuple[int, int]] = Counter()
    whole = [case for case in cases if all(name in case.images for name in modalities)]
    for case in whole or cases:
        try:
            headers = [read_header(source) for source in case.images.values()]
        except ImageError:
            continue
        found[headers[0].spatial_dims, sum(header.channels for header in headers)] += 1
        if found.total() == PROBED:
            break
    if found:
        return found.most_common(1)[0][0]
    pictures = all(source.path.name.lower().endswith(PICTURES) for case in cases for source in case.images.values())
    return (2 if pictures else 3), max((len(case.images) for case in cases), default=1)


def nearest(name: str, names: Iterable[str], count: int = 1) -> list[str]:
    """The most similar names, best first; upper and lower case do not matter."""
    by_folded = {other.casefold(): other for other in names}
    return [by_folded[found] for found in get_close_matches(name.casefold(), by_folded, count, 0.5)]


def listed(names: Sequence[str]) -> str:
    """Names for a message: at most ten of them."""
    return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "nothing"
