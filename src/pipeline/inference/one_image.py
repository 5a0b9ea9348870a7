"""The convolutions of one small 3D image on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Numbers = int | Sequence[int]


class OneImageByOneDNN(TorchFunctionMode):
    """Inside, oneDNN convolves one float32 volume alone too, as it does a batch; on a CPU, for forward passes.

    PyTorch has kernels of its own for one image of at most 20480 values (features x depth x height): slower, and their
    result is contiguous even where features lie channels last (use_mkldnn in aten/src/ATen/native/Convolution.cpp).
    Results differ by rounding.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or oneDNN in the place of ``torch.conv3d`` and ``torch.conv_transpose3d``."""
        if func is torch.conv3d:
            return _convolve(*args, **(kwargs or {}))
        if func is torch.conv_transpose3d:
            return _transposed(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """What ``torch.conv3d`` returns for the same arguments."""
    if isinstance(padding, str) or not _is_one(input, weight):
        return torch.conv3d(input, weight, bias, stride, padding, dilation, groups)
    return torch.mkldnn_convolution(input, weight, bias, _three(padding), _three(stride), _three(dilation), groups)


def _transposed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """What ``torch.conv_transpose3d`` returns for the same arguments; oneDNN's operation has no gradient."""
    enlarged = any(_three(output_padding))  # which oneDNN's does not do
    if enlarged or groups > 1 or torch.is_grad_enabled() or not _is_one(input, weight):
        return torch.conv_transpose3d(input, weight, bias, stride, padding, output_padding, groups, dilation)
    sizes = (_three(padding), _three(output_padding), _three(stride), _three(dilation))
    result: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
        input, weight, bias, *sizes, groups, "none", [], ""
    )
    return result


def _is_one(image: Tensor, weight: Tensor) -> bool:
    """Whether it is one volume that oneDNN may convolve in float32; under autocast it would not be."""
    single = image.ndim == 5 and len(image) == 1
    in_float32 = image.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return single and in_float32 and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def _three(value: Numbers) -> Sequence[int]:
    """One number an axis."""
    return (value,) * 3 if isinstance(value, int) else value
