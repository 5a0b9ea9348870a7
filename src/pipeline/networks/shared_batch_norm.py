"""Batch norm over the batch of all processes that train together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.collective import processes, sum_over_processes
from pipeline.networks.take_over import take_over


class SharedBatchNorm(_BatchNorm):
    """Batch norm whose statistics in training are those of all processes, on any device; weights as in the plain layer.

    (B, C, *spatial) in and out. Statistics are float32 and differentiable across processes, so that gradients that are
    averaged over processes are those of one process with the whole batch (Ioffe & Szegedy 2015 for the norm itself).
    PyTorch's own synchronised layer is for GPUs only.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Plain batch norm where it evaluates or trains alone."""
        if not self.training or processes() == 1:
            return super().forward(input)
        values = input if input.dtype == torch.float64 else input.float()
        axes = [0, *range(2, values.ndim)]
        column = [1, -1] + [1] * (values.ndim - 2)
        count = values.new_full((1,), values.numel() / values.shape[1])
        total = sum_over_processes(torch.cat([values.sum(axes), count]))
        number = total[-1].detach()
        mean = total[:-1] / number
        centred = values - mean.view(column)
        variance = sum_over_processes(centred.square().sum(axes)) / number
        self._follow(mean.detach(), variance.detach() * number / (number - 1))
        result = centred * (variance + self.eps).rsqrt().view(column)
        if self.weight is not None:
            result = result * self.weight.to(values.dtype).view(column)
        if self.bias is not None:
            result = result + self.bias.to(values.dtype).view(column)
        return result.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def share_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with every batch norm over all processes; the same parameters under the same names."""
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return converted
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, take_over(child, SharedBatchNorm))
    return take_over(network, SharedBatchNorm) if isinstance(network, _BatchNorm) else network
