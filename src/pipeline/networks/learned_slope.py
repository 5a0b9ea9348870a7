"""A leaky ReLU whose one slope is learned (PReLU, He et al. 2015), for CPUs.

PyTorch's backward pass of PReLU takes 25 times that of a leaky ReLU on bfloat16 features in channels last: a seventh of
a step of MONAI's UNet. Here both passes are those of the leaky ReLU, and the slope's gradient is a dot product.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.layout import layout

aten = torch.ops.aten


class LearnedSlope(nn.Module):
    """Stands for an ``nn.PReLU`` of one parameter, with the same weight under the same name.

    Off the CPU it computes what that would. The slope's gradient is summed in the type of the features within rows, and
    in float32 over them.
    """

    def __init__(self, prelu: nn.PReLU) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_parameter("weight", prelu.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, *spatial)`` to the same shape, type and layout."""
        if features.device.type != "cpu" or features.ndim < 3:
            return functional.prelu(features, self.weight.to(features.dtype))
        return cast(Tensor, _LearnedSlope.apply(features, self.weight))  # type: ignore[no-untyped-call]


class _LearnedSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=layout(x))
        ctx.save_for_backward(x)
        ctx.slope, ctx.type = float(weight), weight.dtype
        return cast(Tensor, aten.leaky_relu(x, ctx.slope))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x,) = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=layout(x))
        of_x = aten.leaky_relu_backward(gradient, x, ctx.slope, False) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            rows = torch.linalg.vecdot(in_rows(gradient), in_rows(x).clamp_max(0))
            of_weight = rows.sum(dtype=torch.float32).to(ctx.type).reshape(1)
        return of_x, of_weight


def in_rows(features: Tensor) -> Tensor:
    """A view (rows, values) of features (B, C, *spatial) in the order of memory."""
    if layout(features) == torch.contiguous_format:
        return features.reshape(features.shape[0] * features.shape[1], -1)
    return features.movedim(1, -1).reshape(features.shape[0] * features.shape[2], -1)
