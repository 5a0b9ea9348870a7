"""How features lie in memory: contiguous, or with the channels of a voxel side by side."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

NARROW = 16  # channels; PyTorch's norms take fewer one by one where they lie side by side: 5 to 20 times as long


def layout(features: Tensor) -> torch.memory_format:
    """Channels last where the features lie so, else contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(features.ndim)
    if last is None or features.is_contiguous():
        return torch.contiguous_format
    return last if features.is_contiguous(memory_format=last) else torch.contiguous_format


def is_narrow(features: Tensor) -> bool:
    """Whether features in channels last have too few channels for PyTorch's norms on a CPU."""
    return features.device.type == "cpu" and features.shape[1] < NARROW and layout(features) != torch.contiguous_format


def with_strides_of_channels_last(features: Tensor) -> Tensor:
    """Contiguous features of one channel as a view; others as they are.

    With one channel both layouts are the same bytes, and PyTorch reads the layout of a convolution's output from the
    strides of its input: contiguous where they could be either, and all that follows would be laid out anew.
    """
    if features.ndim not in (4, 5) or features.shape[1] != 1:
        return features
    return features.contiguous().squeeze(1).unsqueeze(-1).movedim(-1, 1)


def relaid(features: Tensor, into: torch.memory_format) -> Tensor:
    """The same features in another layout, differentiable; their gradient comes back in the layout they had.

    ``Tensor.contiguous`` lets the gradient keep the layout in which it arrives, and what has its features in one layout
    and their gradient in the other is slow.
    """
    return cast(Tensor, _Relaid.apply(features, into))  # type: ignore[no-untyped-call]


class _Relaid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, into: torch.memory_format) -> Tensor:
        ctx.before = layout(features)
        return features.contiguous(memory_format=into)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.contiguous(memory_format=ctx.before), None
