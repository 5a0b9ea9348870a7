"""A training step in parts, for a batch that does not fit the memory: the gradients of the whole batch."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError, is_out_of_memory, one_line

log = logging.getLogger(__name__)

Batch = dict[str, Any]


class StepInParts:
    """Computes the loss and gradients of a batch in ``parts`` equal parts; doubles their number when memory runs out.

    The loss is the mean over the samples of the batch, as it is in one piece, up to rounding; where a loss or norm
    looks at the whole batch (batch Dice, batch norm), it sees the part. ``parts`` stays for the batches that follow.
    """

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts

    def __call__(
        self, batch: Batch, loss_of: Callable[[Batch], Tensor], parameters: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Mean loss, and its gradient for every parameter (None where it has none).

        Raises UserError when a single sample does not fit.
        """
        size = len(batch["image"])
        while True:
            try:
                return self._run(batch, size, loss_of, parameters)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            if self.parts >= size:
                raise UserError(
                    f"out of memory with one sample at a time: {one_line(reason)}",
                    "set a smaller sampling.patch_size, a smaller network, or trainer.precision=bf16",
                )
            self.parts = min(size, self.parts * 2)
            release_memory()
            log.warning("out of memory: batches are computed in %d parts from now on (engine.oom=shrink)", self.parts)

    def _run(
        self, batch: Batch, size: int, loss_of: Callable[[Batch], Tensor], parameters: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor | None]]:
        total: Tensor | None = None
        sums: list[Tensor | None] = [None] * len(parameters)
        edges = [round(size * part / self.parts) for part in range(self.parts + 1)]
        for first, last in itertools.pairwise(edges):
            loss = loss_of({key: part_of(value, size, first, last) for key, value in batch.items()})
            loss = loss * ((last - first) / size)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            total = loss.detach() if total is None else total + loss.detach()
            for place, gradient in enumerate(gradients):
                if gradient is not None:
                    before = sums[place]
                    sums[place] = gradient if before is None else before + gradient
        assert total is not None
        return total, sums


def part_of(value: Any, size: int, first: int, last: int) -> Any:
    """Samples ``first`` to ``last`` of what holds one entry a sample, anything else as it is."""
    return value[first:last] if isinstance(value, Tensor) and value.ndim and len(value) == size else value


def release_memory() -> None:
    """Give back what torch keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
