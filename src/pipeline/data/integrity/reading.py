"""One file read to its end: what the rules need to know about it, and nothing of its size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.data.case import ArraySource, FileSource, Source
from pipeline.data.image_io import Header, ImageError, read_blocks
from pipeline.data.image_io.arrays import header_of, read_array
from pipeline.data.integrity.lattice import centred, classes_of, fit_of

READING_VERSION = 3
"""Raised whenever a reading of the same file would say something else."""

VOXELS = 1 << 16  # hashed at once
MOST_CLASSES = 16  # values of a mask whose place and brightness are measured

Role = Literal["image", "mask", "voxels"]


@dataclass(frozen=True, slots=True)
class Job:
    """One file (or one array of an .npz) to read in one role; ``voxels``: for the hash of its decoded voxels alone."""

    path: Path
    role: Role
    key: str | None = None

    @classmethod
    def of(cls, source: Source, role: Role) -> Job:
        """The job that reads a source."""
        return cls(source.path, role, source.key if isinstance(source, ArraySource) else None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one image or mask turned out to be; ``fault`` is set, and all else empty, where it cannot be read.

    ``sha256``: of the file; ``content``: hash of the decoded voxels, for images inside an .npz and where asked for;
    ``bag``: the same whatever their order, where asked for. ``affine``: 16 numbers. ``sample``: hash of a lattice of
    voxels, of an image's in any order; all else about intensities but the extremes is estimated from that lattice:
    ``low``, ``high``: 1st and 99th percentile; ``saturated``: share of voxels at the maximum; ``distinct``: number of
    values; ``extent``, ``twins``: see lattice.py. ``flat``: channels of a volume that are constant. ``nonfinite``:
    voxels that are NaN or infinite. ``blank``: slices between others that are constant, how many and the first.
    ``values``: voxels of each raw value in a mask; ``fraction``: a mask value that is no whole number. ``picture``,
    ``thumb``: see ``picture.describe``. ``fit``, ``classes``: of a mask to the image with the hash ``fit_to``, see
    ``lattice.fit_of`` and ``lattice.classes_of``.
    """

    fault: str | None = None
    remedies: tuple[str, ...] = ()
    sha256: str = ""
    content: str = ""
    bag: str = ""
    shape: tuple[int, ...] = ()
    channels: int = 0
    dtype: str = ""
    affine: tuple[float, ...] = ()
    doubts: tuple[str, ...] = ()
    minimum: float = 0.0
    maximum: float = 0.0
    low: float = 0.0
    high: float = 0.0
    saturated: float = 0.0
    distinct: int = 0
    nonfinite: int = 0
    blank: tuple[int, ...] = ()
    extent: tuple[float, ...] = ()
    flat: tuple[int, ...] = ()
    twins: tuple[int, ...] = ()
    values: dict[int, int] | None = None
    fraction: float | None = None
    sample: str = ""
    picture: str = ""
    thumb: str = ""
    fit: tuple[float, float, str] | None = None
    fit_to: str = ""
    classes: dict[int, tuple[float, ...]] | None = None


def read_case(jobs: Sequence[Job]) -> list[list[Reading]]:
    """Readings of the files of one case, the reference image first: one for a file, one per image for an array.

    The fit of a mask to the first image is measured where both have one grid.
    """
    found: list[list[Reading]] = []
    reference: _Read | None = None
    for number, job in enumerate(jobs):
        try:
            if job.role == "voxels":
                with np.errstate(over="ignore"):
                    found.append([_hash_voxels(job.path)])
            elif job.key is not None:
                found.append(_read_images(job.path, job.key))
            else:
                read = _Read(job.path, job.role == "mask")
                if number == 0 and job.role == "image":
                    reference = read
                with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is told by a rule
                    found.append([read.reading(reference if job.role == "mask" else None)])
        except ImageError as error:
            found.append([Reading(fault=error.fault, remedies=error.remedies)])
        except MemoryError:
            found.append([Reading(fault="needs more memory than there is")])
        except OSError as error:
            found.append([Reading(fault=f"cannot be read: {error.strerror or error}")])
    return found


class _Read:
    """One file read to its end; raises ImageError."""

    def __init__(self, path: Path, mask: bool) -> None:
        from pipeline.data.integrity.summary import Summary

        digest = hashlib.sha256()
        self.doubts: list[str] = []
        header, blocks = read_blocks(FileSource(path), mask=mask, digest=digest, doubts=self.doubts)
        summary: Summary | None = None
        for block, shape in _in_storage_order(header, blocks):
            summary = summary or Summary(header, mask, shape)
            summary.add(block)
        assert summary is not None  # no image has no voxel
        self.summary, self.shape, self.sha256 = summary, header.shape, digest.hexdigest()
        self.channels = header.channels

    def reading(self, reference: _Read | None) -> Reading:
        """What was read, with the fit to the image ``reference`` where there is one on the same grid."""
        fit, fit_to, classes = None, "", None
        if reference is not None and reference.shape == self.shape and reference.channels == self.channels == 1:
            image, mask = reference.summary, self.summary
            if not image.nonfinite and not mask.nonfinite:
                grey, sample = centred(image.lattice(), *image.percentiles), mask.lattice()
                fit, fit_to = fit_of(grey, sample), reference.sha256
                if len(mask.values) <= MOST_CLASSES:
                    classes = classes_of(grey, sample, mask.values)
        return self.summary.reading(self.sha256, doubts=tuple(self.doubts), fit=fit, fit_to=fit_to, classes=classes)


def _read_images(path: Path, key: str) -> list[Reading]:
    from pipeline.data.integrity.summary import Summary

    array = read_array(path, key)
    header = header_of(array)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    readings = []
    for image in array:
        summary = Summary(header, False, image.shape)
        summary.add(np.ascontiguousarray(image).reshape(-1))
        readings.append(summary.reading(sha256, hashlib.sha256(image.tobytes()).hexdigest()))
    return readings


def _hash_voxels(path: Path) -> Reading:
    """Hashes of all voxels as float32, in storage order and in any order, whatever the format and type on disk.

    The second is a sum of the hashes of single voxels (an incremental multiset hash, Clarke et al. 2003).
    """
    header, blocks = read_blocks(FileSource(path))
    sizes = [size for size in header.shape if size > 1]
    digest, total = hashlib.sha256(repr(tuple(sizes)).encode()), 0
    for block, _ in _in_storage_order(header, blocks):
        for start in range(0, block.size, VOXELS):
            part = np.ascontiguousarray(block[start : start + VOXELS], "<f4")
            digest.update(part.data)
            total += int(_mixed(part.view(np.uint32)).sum(dtype=np.uint64))
    bag = f"{sorted(sizes)} {total % (1 << 64):016x}"
    return Reading(content=digest.hexdigest(), bag=bag, shape=tuple(header.shape), channels=header.channels)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """A hash of each number, 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = bits.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _in_storage_order(header: Header, blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """Flat blocks, each with the shape (slowest axis first) of the whole that they are parts of.

    Volumes come with their first axis fastest, whatever the format, and channels slowest.
    """
    volume = (header.channels, *header.shape[::-1])
    for block in blocks:
        if block.ndim == 1:
            yield block, volume
        elif block.ndim == 4:
            yield np.moveaxis(block, 0, -1).T.reshape(-1), volume  # a view of what ITK reads
        else:
            yield block.reshape(-1), block.shape


def reading_of(readings: Sequence[Reading], source: Source) -> Reading:
    """The reading of one source among those of its job."""
    if not isinstance(source, ArraySource) or len(readings) == 1:
        return readings[0]
    return readings[source.index]
