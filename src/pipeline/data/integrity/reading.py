"""One file read to its end: what the rules need to know about it, and nothing of its size."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.data.case import ArraySource, FileSource, Source
from pipeline.data.image_io import Header, ImageError, read_blocks
from pipeline.data.image_io.arrays import header_of, read_array

READING_VERSION = 1
"""Raised whenever a reading of the same file would say something else."""

SAMPLE = 10_000  # voxels from which percentiles are estimated
MOST_VALUES = 256  # distinct values of a mask that are counted
BINS = 1 << 16  # span of values that is counted in a table
SLICE = 1 << 16  # voxels counted at once

Role = Literal["image", "mask"]


@dataclass(frozen=True, slots=True)
class Job:
    """One file (or one array of an .npz) to read in one role."""

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

    ``sha256``: of the file; ``content``: hash of the voxels of one image inside an .npz, else empty. ``affine``: 16
    numbers. ``low``, ``high``: 1st and 99th percentile of a sample. ``nonfinite``: voxels that are NaN or infinite.
    ``values``: voxels of each raw value in a mask; ``fraction``: a mask value that is no whole number.
    """

    fault: str | None = None
    remedies: tuple[str, ...] = ()
    sha256: str = ""
    content: str = ""
    shape: tuple[int, ...] = ()
    channels: int = 0
    affine: tuple[float, ...] = ()
    doubts: tuple[str, ...] = ()
    minimum: float = 0.0
    maximum: float = 0.0
    low: float = 0.0
    high: float = 0.0
    nonfinite: int = 0
    values: dict[int, int] | None = None
    fraction: float | None = None


def read_job(job: Job) -> list[Reading]:
    """Readings of a job: one for a file, one per image for an array."""
    try:
        if job.key is not None:
            return _read_images(job.path, job.key)
        return [_read_file(job.path, job.role)]
    except ImageError as error:
        return [Reading(fault=error.fault, remedies=error.remedies)]
    except MemoryError:
        return [Reading(fault="needs more memory than there is")]
    except OSError as error:
        return [Reading(fault=f"cannot be read: {error.strerror or error}")]


def _read_file(path: Path, role: Role) -> Reading:
    digest = hashlib.sha256()
    header, blocks = read_blocks(FileSource(path), mask=role == "mask", digest=digest)
    summary = _Summary(header, role)
    for block in blocks:
        summary.add(block.reshape(-1))
    return summary.reading(digest.hexdigest())


def _read_images(path: Path, key: str) -> list[Reading]:
    array = read_array(path, key)
    header = header_of(array)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    readings = []
    for image in array:
        summary = _Summary(header, "image")
        summary.add(np.ascontiguousarray(image).reshape(-1))
        readings.append(summary.reading(sha256, hashlib.sha256(image.tobytes()).hexdigest()))
    return readings


class _Summary:
    """Statistics of voxels that pass by once, in blocks."""

    def __init__(self, header: Header, role: Role) -> None:
        self.header = header
        self.mask = role == "mask"
        voxels = header.channels * int(np.prod(header.shape))
        self.step = max(1, voxels // SAMPLE)
        self.skip = 0
        self.sample: list[np.ndarray] = []
        self.minimum, self.maximum = np.inf, -np.inf
        self.nonfinite = 0
        self.values: Counter[int] = Counter()
        self.fraction: float | None = None

    def add(self, block: np.ndarray) -> None:
        """Take in a flat block."""
        if block.size == 0:
            return
        lowest, highest = block.min(), block.max()  # a NaN makes both NaN
        if block.dtype.kind == "f" and not (np.isfinite(lowest) and np.isfinite(highest)):
            finite = np.isfinite(block)
            self.nonfinite += int(block.size - finite.sum())
            block = block[finite]
            if block.size == 0:
                return
            lowest, highest = block.min(), block.max()
        self.minimum, self.maximum = min(self.minimum, float(lowest)), max(self.maximum, float(highest))
        if self.mask:
            self._count(block, float(lowest), float(highest))
        else:
            self.sample.append(block[self.skip :: self.step].copy())
            self.skip = (self.skip - block.size) % self.step

    def _count(self, block: np.ndarray, lowest: float, highest: float) -> None:
        if block.dtype.kind == "f":
            whole = np.rint(block)
            unlike = whole != block
            if unlike.any():
                self.fraction = float(block[unlike][0])
            block = whole
        if len(self.values) > MOST_VALUES:
            return
        if highest - lowest >= BINS:
            values, counts = np.unique(block[:SLICE], return_counts=True)
            self.values.update(dict(zip(map(int, values.tolist()), counts.tolist(), strict=True)))
            return
        first = int(np.rint(lowest))
        table = np.zeros(int(np.rint(highest)) - first + 1, np.int64)
        for part in _slices(block):
            table += np.bincount(np.subtract(part, first, dtype=np.intp, casting="unsafe"), minlength=len(table))
        for offset in np.flatnonzero(table).tolist():
            self.values[first + offset] += int(table[offset])

    def reading(self, sha256: str, content: str = "") -> Reading:
        """The reading once all blocks are in."""
        empty = not np.isfinite(self.minimum)
        sample = np.concatenate(self.sample) if self.sample else np.zeros(1)
        low, high = np.percentile(sample, (1, 99)).tolist() if not self.mask else (0.0, 0.0)
        return Reading(
            sha256=sha256,
            content=content,
            shape=tuple(self.header.shape),
            channels=self.header.channels,
            affine=tuple(self.header.affine.ravel().tolist()),
            doubts=self.header.doubts,
            minimum=0.0 if empty else self.minimum,
            maximum=0.0 if empty else self.maximum,
            low=low,
            high=high,
            nonfinite=self.nonfinite,
            values=dict(sorted(self.values.items())) if self.mask else None,
            fraction=self.fraction,
        )


def _slices(block: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, block.size, SLICE):
        yield block[start : start + SLICE]


def reading_of(readings: Sequence[Reading], source: Source) -> Reading:
    """The reading of one source among those of its job."""
    if not isinstance(source, ArraySource) or len(readings) == 1:
        return readings[0]
    return readings[source.index]
