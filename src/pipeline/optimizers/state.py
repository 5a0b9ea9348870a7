"""The state of an optimizer beside its weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def lie_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Lay out what a checkpoint brought (moments, step counts) as the weights lie now, in place; values stay.

    A fused optimizer walks through weights and moments as they lie in memory, and wants its step counts beside them.
    The checkpoint may be of another ``engine.memory_format``, or of an optimizer that was not fused.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state.get(weight, {})
            for name, value in state.items():
                if not isinstance(value, Tensor) or isinstance(value, DTensor):
                    continue
                if value.shape == weight.shape and value.ndim:
                    if value.stride() != weight.stride():
                        state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
                elif name == "step" and group.get("fused"):
                    state[name] = value.to(weight.device, torch.float32)
