"""What processes that train together tell each other; alone, everything is as it was."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes have joined; 1 as long as they have not."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def leave() -> None:
    """Have nothing more to tell the others. Threads of theirs that outlive the interpreter abort it as it ends."""
    if processes() > 1:
        dist.destroy_process_group()


def gathered(value: Any) -> list[Any]:
    """The value of every process, by rank. To be called by all of them."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def merged(of_cases: dict[int, Any]) -> list[Any]:
    """What all processes found, by index: each index once, in order. To be called by all of them."""
    found: dict[int, Any] = {}
    for part in reversed(gathered(of_cases)):  # of an index that several have the first one's counts, everywhere
        found.update(part)
    return [found[index] for index in sorted(found)]


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    if processes() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean over all processes of a sum by which a loss divides, without gradient.

    Gradients are averaged over processes: a loss that divides its own sum by this has the gradient, and on average the
    value, of the whole batch.
    """
    return summed(value) / processes() if processes() > 1 else value


class SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; its gradient is that of the losses of all of them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return summed(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return summed(gradient.contiguous())


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum over all processes with its gradient."""
    if processes() == 1:
        return value
    total: Tensor = SumOverProcesses.apply(value)  # type: ignore[no-untyped-call]
    return total
