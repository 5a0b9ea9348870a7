"""Where the windows of a sliding window lie, and how much each of their voxels counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SIGMA = 0.125  # of a window's edge (nnU-Net, MONAI)
LEAST = 1e-3  # no voxel counts less, so that every sum of weights is above 0


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of windows along an axis of ``size`` voxels, at least ``window``; the last one ends with the image.

    The same as MONAI's sliding_window_inference.
    """
    if size == window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = math.ceil((size - window) / step) + 1
    return [min(number * step, size - window) for number in range(count)]


def blending_weights(patch_size: Sequence[int], blending: str) -> Tensor:
    """Weight of every voxel of a window, (*patch_size) float32: a Gaussian (sigma 1/8 of each edge) or constant 1.

    The same as MONAI's compute_importance_map.
    """
    if blending == "constant":
        return torch.ones(tuple(patch_size))
    weights = torch.ones(())
    for edge in patch_size:
        place = torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2.0
        weights = weights.unsqueeze(-1) * torch.exp(place**2 / (-2 * (SIGMA * edge) ** 2))
    return weights.clamp_(min=max(float(weights.min()), LEAST))
