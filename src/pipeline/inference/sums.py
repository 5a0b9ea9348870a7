"""The weighted sums of a sliding window: of the rows that are not finished yet, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UserError

FREE_SHARE = 0.5  # of a GPU's free memory; the rest is for the network's activations
PARTS = 16  # rows of a window are given on in so many parts
TYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Layout:
    """Sizes of the sums: ``classes`` per network, an image of ``shape`` in windows of ``patch`` along ``axis``."""

    networks: int
    classes: int
    shape: tuple[int, ...]  # of the image, each axis at least as long as the window
    patch: tuple[int, ...]
    axis: int

    @property
    def open_shape(self) -> tuple[int, ...]:
        """The rows that windows at one place along the axis reach: all that is held at a time."""
        return (*self.shape[: self.axis], self.patch[self.axis], *self.shape[self.axis + 1 :])

    @property
    def rows_at_once(self) -> int:
        """Finished rows that are given on at a time."""
        return -(-self.patch[self.axis] // PARTS)

    def nbytes(self, dtype: torch.dtype) -> int:
        """Bytes of the sums, of the weights, and of finished rows with what is made of them."""
        voxels = math.prod(self.open_shape)
        finished = voxels // self.patch[self.axis] * self.rows_at_once
        copies = 4 if self.networks == 1 else 5  # the mean of the networks so far, and the next one's
        return voxels * (self.networks * self.classes * dtype.itemsize + 4) + copies * finished * self.classes * 4


def choose_type(layout: Layout, accumulate: str, memory_gb: float | None) -> torch.dtype:
    """The type of the sums: ``auto`` is float32, or float16 where only that stays below ``memory_gb`` (10^9 bytes).

    Raises UserError where the bound cannot be kept.
    """
    limit = math.inf if memory_gb is None else memory_gb * 1e9
    types = list(TYPES.values()) if accumulate == "auto" else [TYPES[accumulate]]
    for dtype in types:
        if layout.nbytes(dtype) <= limit:
            return dtype
    size = "x".join(map(str, layout.shape))
    raise UserError(
        f"inference.memory_gb={memory_gb:g}: predicting {size} voxels, {layout.classes} classes, with "
        f"{layout.networks} network(s) needs {layout.nbytes(types[-1]) / 1e9:.2f} GB",
        "raise inference.memory_gb (predict: memory_gb)",
        "or predict with fewer networks at a time (predict: ensemble)",
    )


def where_it_fits(nbytes: int, device: torch.device) -> torch.device:
    """``device``, or the machine's memory where so many bytes do not fit on a GPU."""
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    return device if nbytes <= FREE_SHARE * free else torch.device("cpu")


class Sums:
    """Sums of logits and of weights over the open rows; the first of them is row ``start`` of the image."""

    def __init__(self, layout: Layout, dtype: torch.dtype, device: torch.device) -> None:
        self.axis = layout.axis
        self.device = device
        self.start = 0
        open_shape = layout.open_shape
        self.logits = [
            torch.zeros((layout.classes, *open_shape), dtype=dtype, device=device) for _ in range(layout.networks)
        ]
        self.weights = torch.zeros(open_shape, device=device)

    def _where(self, corner: Sequence[int], patch: Sequence[int]) -> tuple[slice, ...]:
        at = [place - self.start if axis == self.axis else place for axis, place in enumerate(corner)]
        return tuple(slice(place, place + edge) for place, edge in zip(at, patch, strict=True))

    def add(self, network: int, corner: Sequence[int], logits: Tensor, weights: Tensor, factor: float) -> None:
        """Add ``factor`` times the logits (K, *patch) float32 of a window, weighted; ``corner``: its first voxel.

        ``weights``: (*patch), where the sums are.
        """
        total = self.logits[network]
        open_rows = total[(slice(None), *self._where(corner, weights.shape))]
        logits = logits.to(total.device)
        if total.dtype == torch.float32:
            open_rows.addcmul_(logits, weights, value=factor)
        else:
            open_rows.add_(logits * weights, alpha=factor)

    def count(self, corner: Sequence[int], weights: Tensor) -> None:
        """Add the weights of a window, once for all networks."""
        self.weights[self._where(corner, weights.shape)] += weights

    def mean(self, network: int, where: Sequence[slice]) -> Tensor:
        """Weighted mean (K, ...) float32 of the logits of a network; ``where``: of the image, within the open rows."""
        inside = list(where)
        rows = inside[self.axis]
        inside[self.axis] = slice(rows.start - self.start, rows.stop - self.start)
        return torch.div(self.logits[network][(slice(None), *inside)], self.weights[tuple(inside)]).float()

    def move(self, rows: int) -> None:
        """Close the first ``rows`` and open as many behind the last."""
        self.start += rows
        for total, axis in [(self.weights, self.axis), *((total, self.axis + 1) for total in self.logits)]:
            stay = total.shape[axis] - rows
            if stay > rows:  # overlapping: within this memory, in steps that do not
                for first in range(0, stay, rows):
                    step = min(rows, stay - first)
                    total.narrow(axis, first, step).copy_(total.narrow(axis, first + rows, step))
            elif stay > 0:
                total.narrow(axis, 0, stay).copy_(total.narrow(axis, rows, stay))
            total.narrow(axis, max(stay, 0), total.shape[axis] - max(stay, 0)).zero_()
