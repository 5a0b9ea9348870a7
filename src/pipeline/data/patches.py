"""Where a training patch is cut, and the cutting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.preprocessing import Prepared
from pipeline.data.store.arrays import StoredArray
from pipeline.data.voxels import Voxels


@dataclass(frozen=True)
class PatchSampling:
    """How patches are placed.

    ``uniform``: anywhere. ``foreground``: a part of the patches (``foreground_fraction``) is centred on a voxel of a
    foreground class, uniform among the classes present in the case (nnU-Net's rule). ``balanced``: the same, but the
    background counts as a class too. A case without the wanted class falls back to uniform.
    """

    mode: Literal["uniform", "foreground", "balanced"]
    size: tuple[int, ...]  # voxels
    foreground_fraction: float

    def start(self, prepared: Prepared, rng: np.random.Generator) -> tuple[int, ...]:
        """First voxel of a patch, per axis; negative where the image is smaller than the patch."""
        shape = prepared.shape
        low = [min(0, (extent - size) // 2) for extent, size in zip(shape, self.size, strict=True)]
        high = [max(extent - size, first) for extent, size, first in zip(shape, self.size, low, strict=True)]
        centred = self.mode != "uniform" and rng.random() < self.foreground_fraction
        classes = [index for index in prepared.centres if index > 0 or self.mode == "balanced"]
        if not centred or not classes:
            return tuple(int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
        voxels = prepared.centres[classes[int(rng.integers(len(classes)))]]
        centre = voxels[int(rng.integers(len(voxels)))]
        return tuple(
            int(min(max(c - size // 2, a), b)) for c, size, a, b in zip(centre, self.size, low, high, strict=True)
        )


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
