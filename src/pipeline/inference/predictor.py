"""From a preprocessed image to class probabilities on the same grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

Network = Callable[[Tensor], Tensor]


class SlidingWindow:
    """Logits of a whole image from overlapping windows, averaged over test-time flips.

    ``patch_size``: voxels of a window; ``overlap``: part of its edge; ``blending``: gaussian (sigma 1/8 of the
    window) or constant; ``mirror_axes``: spatial axes whose flips, in all combinations, are averaged on logits.
    Reference behaviour: nnU-Net (Isensee et al. 2021), inference by MONAI's sliding window.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        *,
        overlap: float,
        window_batch: int,
        blending: str,
        mirror_axes: Sequence[int],
    ) -> None:
        self.patch_size = tuple(patch_size)
        self.overlap = overlap
        self.window_batch = window_batch
        self.blending = blending
        self.mirror_axes = tuple(axis for axis in mirror_axes if axis < len(self.patch_size))

    def __call__(self, network: Network, image: Tensor) -> Tensor:
        """Logits (B, classes, *spatial) float32 of ``image`` (B, C, *spatial)."""
        logits: Tensor | None = None
        flips = all_flips(self.mirror_axes)
        for dims in flips:
            windows = sliding_window_inference(
                torch.flip(image, dims) if dims else image,
                self.patch_size,
                self.window_batch,
                network,
                overlap=self.overlap,
                mode=self.blending,
                sigma_scale=0.125,
            )
            assert isinstance(windows, Tensor)
            part = torch.flip(windows, dims) if dims else windows
            logits = part.float() if logits is None else logits + part
        assert logits is not None
        return logits / len(flips)


class WholeImage:
    """Logits (B, classes) of a batch of images of one size, averaged over test-time flips: classification."""

    def __init__(self, *, mirror_axes: Sequence[int]) -> None:
        self.mirror_axes = tuple(mirror_axes)

    def __call__(self, network: Network, image: Tensor) -> Tensor:
        """Logits of ``image`` (B, C, *spatial)."""
        flips = all_flips([axis for axis in self.mirror_axes if axis < image.ndim - 2])
        return torch.stack([network(torch.flip(image, dims) if dims else image).float() for dims in flips]).mean(dim=0)


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
    activation: Callable[[Tensor], Tensor] = softmax,
) -> Tensor:
    """Mean over the networks of the probabilities, (B, K, ...) float32 on the image's device."""
    total: Tensor | None = None
    with torch.inference_mode(), torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        for network in networks:
            probabilities = activation(predictor(network, image).float())
            total = probabilities if total is None else total + probabilities
    assert total is not None, "an ensemble needs a network"
    return total / len(networks)
