"""Where a training patch is cut, and the cutting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.preprocessing import Prepared
from pipeline.data.store.arrays import StoredArray
from pipeline.data.voxels import Voxels


class Placement(NamedTuple):
    """First voxel of a patch, per axis; ``fallback``: it was to be centred on a class, and the case has none."""

    start: tuple[int, ...]
    fallback: bool


@dataclass(frozen=True)
class PatchSampling:
    """How patches are placed.

    ``uniform``: anywhere. ``foreground`` and ``weighted``: a part of the patches (``foreground_fraction``) is centred
    on a voxel of a foreground class that the case has. ``balanced``: the same, but the background counts as a class
    too. A case without such a class falls back to uniform. ``class_weights``: class index -> how often it is the
    centre, relative to the others (1 where left out); None: all classes of the case alike.

    ``forced``: which patches are centred: "random" by chance, "per_batch" the last ones of each batch of ``batch``
    examples, at least one (nnU-Net's rule, Isensee et al. 2021; there with a fraction of 0.33).
    """

    mode: Literal["uniform", "foreground", "balanced", "weighted"]
    size: tuple[int, ...]  # voxels
    foreground_fraction: float
    class_weights: Mapping[int, float] | None = None
    forced: Literal["random", "per_batch"] = "random"
    batch: int = 1

    def start(self, prepared: Prepared, rng: np.random.Generator, place: int = 0) -> tuple[int, ...]:
        """First voxel of a patch, per axis; negative where the image is smaller than the patch."""
        return self.place(prepared, rng, place).start

    def place(self, prepared: Prepared, rng: np.random.Generator, place: int = 0) -> Placement:
        """Where the patch at ``place`` of the epoch is cut."""
        shape = prepared.shape
        low = [min(0, (extent - size) // 2) for extent, size in zip(shape, self.size, strict=True)]
        high = [max(extent - size, first) for extent, size, first in zip(shape, self.size, low, strict=True)]
        centred = self._centred(rng, place)
        wanted = self._class(prepared, rng) if centred else None
        if wanted is None:
            return Placement(tuple(int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True)), centred)
        voxels = prepared.centres[wanted]
        centre = voxels[int(rng.integers(len(voxels)))]
        start = tuple(
            int(min(max(c - size // 2, a), b)) for c, size, a, b in zip(centre, self.size, low, high, strict=True)
        )
        return Placement(start, False)

    def _centred(self, rng: np.random.Generator, place: int) -> bool:
        if self.mode == "uniform":
            return False
        if self.forced == "random":
            return bool(rng.random() < self.foreground_fraction)
        free = min(self.batch - 1, round(self.batch * (1 - self.foreground_fraction)))
        return self.foreground_fraction > 0 and place % self.batch >= free

    def _class(self, prepared: Prepared, rng: np.random.Generator) -> int | None:
        """The class to centre on, None where the case has none."""
        classes = [index for index in prepared.centres if index > 0 or self.mode == "balanced"]
        if not classes:
            return None
        if self.class_weights is None:
            return classes[int(rng.integers(len(classes)))]
        ends = np.cumsum([self.class_weights.get(index, 1.0) for index in classes])
        if ends[-1] <= 0:
            return None
        return classes[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]


def cut(array: Voxels, start: Sequence[int], size: Sequence[int], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Copy ``size`` voxels from ``start`` of the trailing axes of ``array``, into ``out`` where given; zero outside."""
    lead = array.ndim - len(size)
    extents = array.shape[lead:]
    every = (slice(None),) * lead
    inner = tuple([slice(max(s, 0), min(s + n, extent)) for s, n, extent in zip(start, size, extents, strict=True)])
    if out is None:
        out = np.empty((*array.shape[:lead], *size), dtype=array.dtype)
    if any(i.start >= i.stop for i in inner):
        out[...] = 0
        return out
    piece = array.raw((*every, *inner)) if isinstance(array, StoredArray) else array[(*every, *inner)]
    if piece.shape == out.shape:
        out[...] = piece
        return out
    out[...] = 0
    target = tuple([slice(i.start - s, i.stop - s) for i, s in zip(inner, start, strict=True)])
    out[(*every, *target)] = piece
    return out
