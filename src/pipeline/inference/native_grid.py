"""Probabilities from the preprocessed grid back onto the voxel grid of the file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor

from pipeline.inference.decision import Decision

INSIDE = 0.5 + 1e-3  # voxels beyond the outermost centre that still belong to the grid
# Voxels of the native grid that are interpolated at once, of one class after the other: as many as a processor caches.
SLAB = {"cpu": 1 << 18, "cuda": 1 << 24}


class NativeGrid:
    """Class indices on the grid of a file, from probabilities (K, *shape) on the preprocessed grid.

    ``affine`` and ``native_affine``: (4, 4) voxel index to world, mm, of the two grids. Linear interpolation, then
    ``decision``; voxels outside of the preprocessed grid (cropped away) are background. Where the grids differ by
    flips, permutations, scaling and shifts only, which is what orientation, spacing, crop, pad and resize do, the
    interpolation is separable, and goes slab by slab and class by class.
    """

    def __init__(
        self,
        affine: NDArray[np.float64],
        native_affine: NDArray[np.float64],
        shape: Sequence[int],
        native_shape: Sequence[int],
        decision: Decision | None = None,
    ) -> None:
        self.decision = decision or Decision()
        self.native_shape = tuple(native_shape)
        dims = len(self.native_shape)
        matrix = np.linalg.inv(affine) @ native_affine  # native voxel index -> preprocessed voxel index
        self.linear, self.shift = matrix[:dims, :dims], matrix[:dims, 3]
        along = np.abs(self.linear) > 1e-6 * np.abs(self.linear).max()
        self.lines: list[_Line] | None = None
        if (along.sum(axis=0) == 1).all() and (along.sum(axis=1) == 1).all():
            self.lines = [
                _line(self.linear, self.shift, axis, extent, shape) for axis, extent in enumerate(self.native_shape)
            ]

    def fill(self, blocks: Iterable[tuple[int, Tensor]], axis: int) -> NDArray[np.uint8]:
        """The class indices; ``blocks``: rows along ``axis`` of the preprocessed grid in order, with the first row."""
        if self.lines is None:
            whole = torch.cat([values for _, values in blocks], dim=axis + 1)
            return _general(whole, self.linear, self.shift, self.native_shape, self.decision)
        found = np.zeros(self.native_shape, np.uint8)
        target = found[tuple(slice(line.first, line.first + len(line.low)) for line in self.lines)]
        along = next(number for number, line in enumerate(self.lines) if line.source == axis)
        order = [line.source + 1 for line in self.lines]
        for values, rows, low in self._ready(blocks, self.lines[along], axis):
            turned = values.permute(0, *order)
            rest = math.prod(extent for number, extent in enumerate(target.shape) if number != along)
            step = max(1, SLAB.get(values.device.type, SLAB["cpu"]) // max(1, rest))
            for first in range(rows.start, rows.stop, step):
                part = slice(first, min(first + step, rows.stop))
                others = [(number, line) for number, line in enumerate(self.lines) if number != along]
                lines = [(along, self.lines[along].part(part, low)), *others]
                indices = self.decision.of_classes(_interpolated(of_class, lines) for of_class in turned)
                place = tuple(part if number == along else slice(None) for number in range(target.ndim))
                target[place] = indices.cpu().numpy()
        return found

    def _ready(
        self, blocks: Iterable[tuple[int, Tensor]], line: _Line, axis: int
    ) -> Iterator[tuple[Tensor, slice, int]]:
        """Values, the native rows that they decide, and the preprocessed row that they begin with."""
        rising = len(line.low) < 2 or line.low[0] <= line.low[-1]
        needed = line.high if rising else line.high[::-1]
        done, rest = 0, None
        for start, block in blocks:
            values = block if rest is None else torch.cat([rest, block], dim=axis + 1)
            start, end = (start if rest is None else start - 1), start + block.shape[axis + 1]
            ready = int(np.searchsorted(needed, end, side="left"))
            if ready > done:
                count = len(needed)
                yield values, slice(done, ready) if rising else slice(count - ready, count - done), start
            done = ready
            rest = values.narrow(axis + 1, values.shape[axis + 1] - 1, 1).clone() if line.between else None


def to_native_grid(
    probabilities: Tensor,
    affine: NDArray[np.float64],
    native_affine: NDArray[np.float64],
    native_shape: Sequence[int],
    decision: Decision | None = None,
) -> NDArray[np.uint8]:
    """Class indices (*native_shape) of all ``probabilities`` (K, *spatial) at once; see NativeGrid."""
    grid = NativeGrid(affine, native_affine, probabilities.shape[1:], native_shape, decision)
    return grid.fill([(0, probabilities)], axis=0)


@dataclass(frozen=True)
class _Line:
    """Linear interpolation along one native axis, of the voxels inside of the preprocessed grid.

    ``source``: the axis of the preprocessed grid; ``first``: first native voxel; ``low``, ``high`` and ``weight`` of
    the latter, per native voxel; ``between``: whether any lies between two voxels; ``same``: nothing is to be done.
    """

    source: int
    first: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]
    between: bool
    same: bool

    def part(self, rows: slice, start: int) -> _Line:
        """The line of some of its voxels, for values that begin with row ``start``."""
        low, high = self.low[rows] - start, self.high[rows] - start
        return _Line(self.source, self.first, low, high, self.weight[rows], self.between, same=False)


def _line(
    linear: NDArray[np.float64], shift: NDArray[np.float64], axis: int, extent: int, shape: Sequence[int]
) -> _Line:
    source = int(np.argmax(np.abs(linear[:, axis])))
    old = shape[source]
    place = linear[source, axis] * np.arange(extent) + shift[source]
    inside = np.flatnonzero((place >= -INSIDE) & (place <= old - 1 + INSIDE))
    first = int(inside[0]) if len(inside) else 0
    place = np.clip(place[inside], 0, old - 1)
    low = np.minimum(np.floor(place + 1e-6).astype(np.int64), old - 1)
    weight = np.clip(place - low, 0, 1)
    between = bool(len(weight)) and float(weight.max()) >= 1e-4
    same = not between and len(low) == old and bool((low == np.arange(old)).all())
    high = np.minimum(low + 1, old - 1) if between else low
    return _Line(source, first, low, high, weight.astype(np.float32), between, same)


def _interpolated(values: Tensor, lines: Sequence[tuple[int, _Line]]) -> Tensor:
    """Values (*spatial), in the order of the native axes, at the voxels of the lines of these axes."""
    for axis, line in lines:
        if line.same:
            continue
        lower = _rows(values, axis, line.low)
        if not line.between:
            values = lower
            continue
        upper = _rows(values, axis, line.high)
        shape = [1] * values.ndim
        shape[axis] = len(line.low)
        weights = torch.from_numpy(line.weight).to(values.device).view(shape)
        values = torch.lerp(lower, upper, weights)
    return values


def _rows(values: Tensor, axis: int, places: NDArray[np.int64]) -> Tensor:
    """``values`` at ``places`` along an axis; a view where they follow each other."""
    if len(places) and (np.diff(places) == 1).all():
        return values.narrow(axis, int(places[0]), len(places))
    return values.index_select(axis, torch.from_numpy(places).to(values.device))


def _general(
    probabilities: Tensor,
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    native_shape: Sequence[int],
    decision: Decision,
) -> NDArray[np.uint8]:
    best = np.zeros(tuple(native_shape), dtype=np.uint8)
    highest = np.full(tuple(native_shape), 1e-6, dtype=np.float32)
    for index, values in enumerate(probabilities.float().cpu().numpy()):
        resampled = affine_transform(
            values, linear, shift, tuple(native_shape), order=1, mode="grid-constant", cval=0.0
        )
        if decision.painted is not None:
            best[resampled > decision.threshold] = decision.painted[index]
            continue
        better = resampled > highest
        best[better], highest[better] = index, resampled[better]
    return best
