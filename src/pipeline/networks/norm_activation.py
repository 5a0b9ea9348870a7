"""Instance normalisation and leaky ReLU in one differentiable operation, for CPUs.

Stock PyTorch normalises in float32 and copies the features to and fro between layouts and types, which takes a third of
a training step. Here features stay in their own type and layout (bfloat16, channels last), statistics are float32, and
the backward pass starts from the input that was saved anyway.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.layout import is_narrow, layout, relaid

aten = torch.ops.aten


class NormActivation(nn.Module):
    """An instance norm with the leaky ReLU after it; weights and their names are those of the norm it stands for.

    ``slope`` is that of negative values: 0 for a ReLU, 1 where no activation follows. Off the CPU it computes what the
    two layers would. Raises ValueError for features of one voxel, as the norm does.
    """

    def __init__(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d, slope: float) -> None:
        super().__init__()
        self.weight: Tensor | None
        self.bias: Tensor | None
        self.register_parameter("weight", norm.weight)
        self.register_parameter("bias", norm.bias)
        self.eps = norm.eps
        self.slope = slope

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, *spatial)`` to the same shape, type and layout."""
        weight, bias = self.weight, self.bias
        if features.device.type == "cpu":
            if prod(features.shape[2:]) == 1:
                raise ValueError(f"cannot normalise over one voxel: features {tuple(features.shape)}")
            if is_narrow(features):
                return relaid(self._fused(relaid(features, torch.contiguous_format)), layout(features))
            return self._fused(features)
        result = functional.instance_norm(features, weight=weight, bias=bias, eps=self.eps)
        return result if self.slope == 1.0 else functional.leaky_relu(result, self.slope, inplace=True)

    def _fused(self, features: Tensor) -> Tensor:
        given = (features, self.weight, self.bias, self.eps, self.slope)
        result: Tensor = _NormActivation.apply(*given)  # type: ignore[no-untyped-call]
        return result

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"eps={self.eps}, slope={self.slope}"


class _NormActivation(torch.autograd.Function):
    """PyTorch's own kernels for other norms, which take bfloat16 as it is, on what an instance norm is.

    Contiguous: a group norm with one group a channel. Channels last: a batch norm of each image alone, because the
    group norm's backward pass is slow there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float) -> Tensor:
        x = x.contiguous(memory_format=layout(x))
        ctx.slope, ctx.eps = slope, eps
        images, channels = x.shape[:2]
        if layout(x) == torch.contiguous_format:
            y, mean, rstd = torch.native_group_norm(x, weight, bias, *group_sizes(x), eps)
        else:
            y = torch.empty_like(x)
            mean, rstd = torch.empty(2, images, channels, dtype=torch.promote_types(x.dtype, torch.float32))
            for i in range(images):
                one = slice(i, i + 1)
                into = {"out": y[one], "save_mean": mean[i], "save_invstd": rstd[i]}
                aten.native_batch_norm.out(x[one], weight, bias, None, None, True, 0.0, eps, **into)
        if slope != 1.0:
            aten.leaky_relu_(y, slope)
        ctx.save_for_backward(x, weight, mean, rstd, y if slope != 1.0 else None)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd, y = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=layout(x))
        if y is not None:  # a positive slope keeps the sign, so the result tells where the input was negative
            gradient = aten.leaky_relu_backward(gradient, y, ctx.slope, True)
        wanted = [ctx.needs_input_grad[0], weight is not None, weight is not None]
        if layout(x) == torch.contiguous_format:
            sizes = group_sizes(x)
            of_x, of_weight, of_bias = aten.native_group_norm_backward(gradient, x, mean, rstd, weight, *sizes, wanted)
            return of_x, of_weight, of_bias, None, None
        of_x = torch.empty_like(x) if wanted[0] else None
        sums = []
        for i in range(len(x)):
            one = slice(i, i + 1)
            given = (gradient[one], x[one], weight, None, None, mean[i], rstd[i], True, ctx.eps, wanted)
            part, *of_weights = aten.native_batch_norm_backward(*given)
            if of_x is not None:
                of_x[one].copy_(part)
            sums.append(of_weights)
        if weight is None:
            return of_x, None, None, None, None
        of_weight, of_bias = (torch.stack(parts).sum(dim=0) for parts in zip(*sums, strict=True))
        return of_x, of_weight, of_bias, None, None


def group_sizes(features: Tensor) -> tuple[int, int, int, int]:
    """Images, channels, voxels and groups for a group norm with one group a channel."""
    images, channels = features.shape[:2]
    return images, channels, prod(features.shape[2:]), channels
