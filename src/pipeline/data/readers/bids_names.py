"""File names of the Brain Imaging Data Structure: entities, a suffix and an extension (Gorgolewski et al. 2016)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.image_io import SUFFIXES, suffix_of

ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+.]+)")


@dataclass(frozen=True)
class BidsFile:
    """An image file such as sub-01_ses-1_acq-hires_T1w.nii.gz; ``entities`` are those of its name, in its order."""

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str

    def has(self, wanted: Mapping[str, str]) -> bool:
        """Whether the entities have the wanted values."""
        return all(same(self.entities.get(key), value) for key, value in wanted.items())


def same(one: str | None, other: str | None) -> bool:
    """Whether two values of an entity agree; numbers do with and without leading zeros."""
    if one is None or other is None:
        return one is other
    return one == other or (one.isdecimal() and other.isdecimal() and int(one) == int(other))


def parse_name(path: Path) -> BidsFile | None:
    """The parts of an image's name, or None where it is no BIDS name of an image."""
    if not path.name.lower().endswith(SUFFIXES):
        return None
    extension = suffix_of(path)
    *pairs, suffix = path.name[: -len(extension)].split("_")
    matches = [ENTITY.fullmatch(pair) for pair in pairs]
    if not pairs or not suffix.isalnum() or any(match is None for match in matches):
        return None
    return BidsFile(path, dict(match.groups() for match in matches if match), suffix, extension)  # type: ignore[misc]


def images_in(folder: Path) -> list[BidsFile]:
    """The images with BIDS names in a folder, in the order of their names."""
    if not folder.is_dir():
        return []
    return [file for path in sorted(folder.iterdir()) if (file := parse_name(path)) is not None]


def sessions(folder: Path) -> Iterator[tuple[str, str | None, Path]]:
    """``sub-<label>``, ``ses-<label>`` (None where there are no sessions) and the folder of every session."""
    for subject in sorted(folder.glob("sub-*")):
        if not subject.is_dir():
            continue
        found = sorted(path for path in subject.glob("ses-*") if path.is_dir())
        for session in found:
            yield subject.name, session.name, session
        if not found:
            yield subject.name, None, subject
