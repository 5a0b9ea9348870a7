"""Statistics of voxels that pass by once, in flat blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np

from pipeline.data.image_io import Header
from pipeline.data.integrity.lattice import digest_of, drawing_of, extent_of, lattice, twins_of
from pipeline.data.integrity.picture import describe
from pipeline.data.integrity.reading import Reading

MOST_VALUES = 256  # distinct values of a mask that are counted
BINS = 1 << 16  # span of values that is counted in a table
SLICE = 1 << 16  # voxels counted at once
SORTED = 3000  # voxels of the lattice, about, from which percentiles are taken
FEW = 4  # span of values that are counted one by one


class Summary:
    """``shape``: of all voxels in the order in which they come, slowest axis first: (channels, ..., rows, columns)."""

    def __init__(self, header: Header, mask: bool, shape: tuple[int, ...]) -> None:
        self.header = header
        self.mask = mask
        self.places, self.shape = lattice(shape)
        self.full = shape
        self.total = math.prod(shape)
        self.sample = np.empty(self.places.size, header.dtype)
        self.at = self.taken = self.begun = 0
        self.minimum, self.maximum = np.inf, -np.inf
        self.nonfinite = 0
        self.percentiles = 0.0, 0.0  # the 1st and 99th, once the reading is made
        self.values: Counter[int] = Counter()
        self.fraction: float | None = None
        self.plane: np.ndarray | None = None
        self.slices = _Slices(shape) if len(shape) == 4 and not mask else None

    def add(self, block: np.ndarray) -> None:
        """Take in the next voxels."""
        if block.size == 0:
            return
        self._take(block)
        if self.slices is not None:
            lowest, highest = self.slices.add(block)
        else:
            lowest, highest = float(block.min()), float(block.max())  # a NaN makes both NaN
            if len(self.full) == 3 and not self.mask:
                self._picture(block)
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            finite = np.isfinite(block)
            self.nonfinite += int(block.size - finite.sum())
            block = block[finite]
            if block.size == 0:
                return
            lowest, highest = float(block.min()), float(block.max())
        self.minimum, self.maximum = min(self.minimum, lowest), max(self.maximum, highest)
        if self.mask:
            self._count(block, lowest, highest)

    def _picture(self, block: np.ndarray) -> None:
        """Put together the one plane of a picture; of its first channel only where there are several."""
        if self.plane is None and block.size == self.total:
            self.plane = block.reshape(self.full)[0]
            return
        if self.plane is None:
            self.plane = np.zeros(self.full[1:], block.dtype)
        flat, end = self.plane.reshape(-1), self.begun + block.size
        flat[self.begun : end] = block[: max(0, flat.size - self.begun)]
        self.begun = end

    def _take(self, block: np.ndarray) -> None:
        """Keep the voxels of the block that are points of the lattice."""
        if block.size == self.places.size == self.total:
            self.sample[:] = block
            return
        end = int(np.searchsorted(self.places, self.at + block.size))
        self.sample[self.taken : end] = block[self.places[self.taken : end] - self.at]
        self.taken = end
        self.at += block.size

    def _count(self, block: np.ndarray, lowest: float, highest: float) -> None:
        if block.dtype.kind == "f":
            whole = np.rint(block)
            unlike = whole != block
            if unlike.any():
                self.fraction = float(block[unlike][0])
            block = whole
        if len(self.values) > MOST_VALUES:
            return
        first, last = int(np.rint(lowest)), int(np.rint(highest))
        if first == last:
            self.values[first] += block.size
            return
        ends = int(np.count_nonzero(block == first)), int(np.count_nonzero(block == last))
        if sum(ends) == block.size:
            self.values[first] += ends[0]
            self.values[last] += ends[1]
        elif last - first <= FEW:
            for value in range(first, last + 1):
                if count := int(np.count_nonzero(block == value)):
                    self.values[value] += count
        elif last - first >= BINS:
            values, counts = np.unique(block[:SLICE], return_counts=True)
            self.values.update(dict(zip(map(int, values.tolist()), counts.tolist(), strict=True)))
        else:
            table = np.zeros(last - first + 1, np.int64)
            for part in _slices(block):
                table += np.bincount(np.subtract(part, first, dtype=np.intp, casting="unsafe"), minlength=len(table))
            for offset in np.flatnonzero(table).tolist():
                self.values[first + offset] += int(table[offset])

    def lattice(self) -> np.ndarray:
        """The voxels on the lattice, axes in the order in which they came."""
        return self.sample.reshape(self.shape)

    def reading(
        self,
        sha256: str,
        content: str = "",
        doubts: tuple[str, ...] = (),
        fit: tuple[float, float, str] | None = None,
        fit_to: str = "",
        classes: dict[int, tuple[float, ...]] | None = None,
    ) -> Reading:
        """The reading once all blocks are in."""
        if not np.isfinite(self.minimum):  # no voxel is finite
            self.minimum = self.maximum = 0.0
        low = high = saturated = 0.0
        distinct = 0
        picture = thumb = ""
        extent: tuple[float, ...] = ()
        twins: tuple[int, ...] = ()
        if not self.mask:
            found = self.sample[:: max(1, self.sample.size // SORTED)]
            found = found if not self.nonfinite else found[np.isfinite(found)]
            if found.size:
                found = np.sort(found, kind="stable" if found.dtype.itemsize <= 2 else None)  # radix sort
                low, high = float(found[(found.size - 1) // 100]), float(found[-1 - (found.size - 1) // 100])
                self.percentiles = low, high
                saturated = 1 - int(np.searchsorted(found, self.maximum)) / found.size
                distinct = 1 + int(np.count_nonzero(found[1:] != found[:-1]))
            extent = extent_of(self.lattice())
            twins = twins_of(self.lattice()) if self.slices is not None and self.header.channels > 1 else ()
            if self.plane is not None and not self.nonfinite:
                picture, thumb = describe(self.plane)
        return Reading(
            sha256=sha256,
            content=content,
            shape=tuple(self.header.shape),
            channels=self.header.channels,
            dtype=_name(self.header.dtype),
            affine=tuple(self.header.affine.ravel().tolist()),
            doubts=(*self.header.doubts, *doubts),
            minimum=self.minimum,
            maximum=self.maximum,
            low=low,
            high=high,
            saturated=saturated,
            distinct=distinct,
            nonfinite=self.nonfinite,
            blank=self.slices.blank() if self.slices is not None else (),
            extent=extent,
            flat=self.slices.flat() if self.slices is not None else (),
            twins=twins,
            values=dict(sorted(self.values.items())) if self.mask else None,
            fraction=self.fraction,
            sample=drawing_of(self.sample) if self.mask else digest_of(self.full, self.sample),
            picture=picture,
            thumb=thumb,
            fit=fit,
            fit_to=fit_to,
            classes=classes,
        )


@cache
def _name(dtype: np.dtype[np.generic]) -> str:
    return str(dtype)


class _Slices:
    """Lowest and highest voxel of each slice along the slowest spatial axis."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        channels, self.count, rows, columns = shape
        self.size = rows * columns
        self.low = np.full(channels * self.count, np.inf)
        self.high = np.full(channels * self.count, -np.inf)
        self.at = 0

    def add(self, block: np.ndarray) -> tuple[float, float]:
        """Take in the next voxels; their lowest and highest, NaN where one is."""
        ends = []
        start = 0
        while start < block.size:
            number, offset = divmod(self.at + start, self.size)
            if offset == 0 and block.size - start >= self.size:  # whole slices together
                whole = (block.size - start) // self.size
                stop = start + whole * self.size
                planes = block[start:stop].reshape(whole, self.size)
                low, high = planes.min(axis=1), planes.max(axis=1)
                self.low[number : number + whole], self.high[number : number + whole] = low, high
                ends.append((low.min(), high.max()))
            else:
                stop = min(block.size, start + self.size - offset)
                part = block[start:stop]
                low, high = part.min(), part.max()
                self.low[number] = np.minimum(self.low[number], low)
                self.high[number] = np.maximum(self.high[number], high)
                ends.append((low, high))
            start = stop
        self.at += block.size
        return float(np.min([low for low, _ in ends])), float(np.max([high for _, high in ends]))

    def blank(self) -> tuple[int, ...]:
        """How many slices between others are constant, and the first of them; () where none is."""
        empty = (self.low == self.high).reshape(-1, self.count)
        found: list[int] = []
        for channel in empty:
            shown = np.flatnonzero(~channel)
            if shown.size:
                inner = np.arange(shown[0], shown[-1] + 1)
                found += inner[channel[inner]].tolist()
        return (len(found), min(found)) if found else ()

    def flat(self) -> tuple[int, ...]:
        """The channels, of several, in which every voxel is equal."""
        low, high = (ends.reshape(-1, self.count) for ends in (self.low, self.high))
        return tuple(np.flatnonzero(low.min(axis=1) == high.max(axis=1)).tolist()) if len(low) > 1 else ()


def _slices(block: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, block.size, SLICE):
        yield block[start : start + SLICE]
