"""From a preprocessed image to class probabilities on the same grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations, product
from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.inference.one_image import OneImageByOneDNN
from pipeline.inference.sums import Layout, Sums, choose_type, where_it_fits
from pipeline.inference.windows import blending_weights, window_starts

PAIRED = 1_000_000  # voxels of a window; larger ones fill a processor alone, and two would hold twice the memory
Network = Callable[[Tensor], Tensor]
Activation = Callable[[Tensor], Tensor]


class SlidingWindow:
    """Logits of a whole image from overlapping windows, averaged over test-time flips.

    ``patch_size``: voxels of a window; ``overlap``: part of its edge; ``window_batch``: windows and flips of windows
    per forward pass (auto: 2, or 1 of large windows); ``blending``: gaussian (sigma 1/8 of the window) or constant;
    ``mirror_axes``: spatial axes whose flips, in all combinations, are averaged on logits, window by window. The
    windows go along one axis of the image; rows that no later window reaches are given on, so that sums of few rows are
    held at a time: in ``accumulate`` (float32, float16, or auto: float16 where float32 needs more than ``memory_gb``,
    10^9 bytes; None: no bound).

    Windows, weights and padding are those of MONAI's sliding_window_inference, flips those of nnU-Net (Isensee et al.
    2021). Images smaller than a window are padded with zeros.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        *,
        overlap: float,
        window_batch: int | Literal["auto"],
        blending: str,
        mirror_axes: Sequence[int],
        accumulate: str = "auto",
        memory_gb: float | None = None,
    ) -> None:
        self.patch_size = tuple(patch_size)
        self.overlap = overlap
        if window_batch == "auto":
            window_batch = 2 if prod(self.patch_size) <= PAIRED else 1
        self.window_batch = window_batch
        self.accumulate = accumulate
        self.memory_gb = memory_gb
        # Along an axis of one voxel a flip changes nothing.
        self.flips = all_flips([axis for axis in mirror_axes if axis < len(patch_size) and patch_size[axis] > 1])
        self.together = max(1, window_batch // len(self.flips))  # windows; a smaller batch holds flips of one
        self.weights = blending_weights(self.patch_size, blending)

    def axis(self, shape: Sequence[int]) -> int:
        """The spatial axis along which an image of ``shape`` is given on: where a window reaches least of it."""
        reach = [window / max(size, window) for window, size in zip(self.patch_size, shape, strict=True)]
        return reach.index(min(reach))

    def layout(self, shape: Sequence[int], classes: int, networks: int) -> Layout:
        """Sizes of the sums for an image of spatial ``shape``."""
        whole = tuple(max(size, window) for size, window in zip(shape, self.patch_size, strict=True))
        return Layout(networks, classes, whole, self.patch_size, self.axis(shape))

    def require_memory(self, shape: Sequence[int], classes: int, networks: int) -> None:
        """Raise UserError where such an image cannot be predicted within ``memory_gb``."""
        choose_type(self.layout(shape, classes, networks), self.accumulate, self.memory_gb)

    def blocks(
        self,
        networks: Sequence[Network],
        image: Tensor,
        activation: Activation | None = None,
        *,
        device: torch.device | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """The result for ``image`` (C, *spatial) in pieces along ``axis``: first row, and (K, ...) float32.

        Mean over the networks of the logits, or of what ``activation`` makes of them, (B, K, ...). ``device``: where
        the networks are; None: where the image is. Raises UserError where ``memory_gb`` is too little.
        """
        shape = tuple(image.shape[1:])
        axis, device = self.axis(shape), device or image.device
        padded, before = _padded(image, self.patch_size)
        padded = padded.to(where_it_fits(padded.nbytes, device))
        whole = padded.shape[1:]
        starts = [
            window_starts(size, window, self.overlap) for size, window in zip(whole, self.patch_size, strict=True)
        ]
        weights = self.weights
        sums, layout = None, self.layout(shape, classes=0, networks=len(networks))
        rows = starts[axis]
        for start, following in zip(rows, [*rows[1:], whole[axis]], strict=True):
            corners = list(product(*(places if at != axis else [start] for at, places in enumerate(starts))))
            for first in range(0, len(corners), self.together):
                together = corners[first : first + self.together]
                windows = _cut(padded, together, self.patch_size).to(device)
                for number, network in enumerate(networks):
                    logits = self._flipped(network, windows)
                    if sums is None:
                        layout = replace(layout, classes=logits.shape[1])
                        dtype = choose_type(layout, self.accumulate, self.memory_gb)
                        sums = Sums(layout, dtype, where_it_fits(layout.nbytes(dtype), device))
                        weights = self.weights = weights.to(sums.device)
                    for corner, values in zip(together, logits, strict=True):
                        sums.add(number, corner, values, weights, 1 / len(self.flips))
                assert sums is not None, "an ensemble needs a network"
                for corner in together:
                    sums.count(corner, weights)
            assert sums is not None
            begin, end = max(start, before[axis]), min(following, before[axis] + shape[axis])
            for low in range(begin, end, layout.rows_at_once):
                where = [slice(offset, offset + size) for offset, size in zip(before, shape, strict=True)]
                where[axis] = slice(low, min(low + layout.rows_at_once, end))
                yield low - before[axis], _mean(sums, len(networks), where, activation)
            sums.move(following - start)

    def _flipped(self, network: Network, windows: Tensor) -> Tensor:
        """Sum over the flips of the logits (n, K, *patch) float32 of ``windows`` (n, C, *patch)."""
        total: Tensor | None = None
        count = max(1, self.window_batch // len(windows))
        for first in range(0, len(self.flips), count):
            flips = self.flips[first : first + count]
            images = [torch.flip(windows, dims) if dims else windows for dims in flips]
            logits = _logits(network, images[0] if len(images) == 1 else torch.cat(images))
            if logits.shape[2:] != windows.shape[2:]:
                raise ValueError(f"windows of {tuple(windows.shape[2:])} voxels gave {tuple(logits.shape[2:])}")
            for dims, part in zip(flips, logits.split(len(windows)), strict=True):
                values = torch.flip(part, dims) if dims else part
                if total is None:  # a copy where more is added to it: it may be the image itself
                    total = values.to(torch.float32, copy=len(self.flips) > 1)
                else:
                    total += values
        assert total is not None
        return total


class WholeImage:
    """Logits (B, classes) of a batch of images of one size, averaged over test-time flips: classification."""

    def __init__(self, *, mirror_axes: Sequence[int]) -> None:
        self.mirror_axes = tuple(mirror_axes)

    def __call__(self, network: Network, image: Tensor) -> Tensor:
        """Logits of ``image`` (B, C, *spatial)."""
        shape = image.shape[2:]
        flips = all_flips([axis for axis in self.mirror_axes if axis < len(shape) and shape[axis] > 1])
        flipped = (torch.flip(image, dims) if dims else image for dims in flips)
        return torch.stack([_logits(network, one).float() for one in flipped]).mean(dim=0)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (B, K, ...) of classes that exclude each other."""
    return torch.softmax(logits, dim=1)


def all_flips(axes: Sequence[int]) -> list[list[int]]:
    """Tensor dimensions (B, C, *spatial) of every combination of flips along spatial ``axes``, none first."""
    return [[axis + 2 for axis in flip] for n in range(len(axes) + 1) for flip in combinations(axes, n)]


def ensemble(
    networks: Sequence[Network],
    predictor: Callable[[Network, Tensor], Tensor],
    image: Tensor,
    *,
    bf16: bool,
    activation: Activation = softmax,
) -> Tensor:
    """Mean over the networks of the probabilities, (B, K, ...) float32 on the image's device."""
    total: Tensor | None = None
    with torch.inference_mode(), torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        for network in networks:
            probabilities = activation(predictor(network, image).float())
            total = probabilities if total is None else total + probabilities
    assert total is not None, "an ensemble needs a network"
    return total / len(networks)


def _logits(network: Network, images: Tensor) -> Tensor:
    """What the network gives for a batch, the fastest way on its device."""
    with OneImageByOneDNN() if images.device.type == "cpu" else nullcontext():
        return network(images)


def _padded(image: Tensor, patch_size: Sequence[int]) -> tuple[Tensor, list[int]]:
    """The image (C, *spatial) at least as large as a window, and how much stands before it along each axis."""
    lacking = [max(window - size, 0) for window, size in zip(patch_size, image.shape[1:], strict=True)]
    before = [number // 2 for number in lacking]
    if not any(lacking):
        return image, before
    sides = [(low, number - low) for low, number in zip(before, lacking, strict=True)]
    return F.pad(image, [width for pair in reversed(sides) for width in pair]), before


def _cut(image: Tensor, corners: Sequence[Sequence[int]], patch_size: Sequence[int]) -> Tensor:
    """Windows (n, C, *patch) of an image; a view where there is one."""
    windows = [
        image[(slice(None), *(slice(place, place + edge) for place, edge in zip(corner, patch_size, strict=True)))]
        for corner in corners
    ]
    return windows[0][None] if len(windows) == 1 else torch.stack(windows)


def _mean(sums: Sums, networks: int, where: Sequence[slice], activation: Activation | None) -> Tensor:
    """Mean over the networks of what ``activation`` makes of their logits (K, ...)."""
    total: Tensor | None = None
    for network in range(networks):
        values = sums.mean(network, where)
        if activation is not None:
            values = activation(values[None])[0]
        total = values if total is None else total.add_(values)
    assert total is not None
    return total if networks == 1 else total.div_(networks)
