"""Muon: momentum whose update of each weight matrix is made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al. 2024


class Muon(torch.optim.Optimizer):
    """Muon for kernels and matrices of at least ``smallest`` rows and columns, AdamW for every other parameter.

    A kernel counts as a matrix of its first axis by all others. Its momentum (Nesterov) is replaced by the nearest
    orthogonal matrix (``iterations`` of Newton-Schulz) times ``0.2 * sqrt(longer side)``, which gives the update the
    root mean square of AdamW's: ``lr`` and ``weight_decay`` (decoupled) mean the same for both kinds of parameters.
    Rows are taken in blocks of at most ``block``, each a matrix of its own: the cost of a matrix grows with the third
    power of its shorter side, and would outweigh the network itself where few voxels meet many features.
    Source: Jordan et al., Muon, 2024; scale: Liu et al., Muon is scalable for LLM training, 2025; AdamW: Loshchilov
    and Hutter, ICLR 2019.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        iterations: int = 5,
        smallest: int = 8,
        block: int = 128,
    ) -> None:
        both: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in params:
            both[parameter.ndim > 1 and min(_matrix(parameter).shape) >= smallest].append(parameter)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "betas": tuple(betas),
            "eps": eps,
            "iterations": iterations,
            "block": block,
        }
        groups = [{"params": found, "orthogonal": kind} for kind, found in both.items() if found]
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
            if moved:
                (self._muon if group["orthogonal"] else self._adamw)(moved, group)
        return loss

    def _muon(self, moved: Sequence[tuple[Tensor, Tensor]], group: Mapping[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        parameters, gradients = [parameter for parameter, _ in moved], [gradient for _, gradient in moved]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, buffers, momentum)
        blocks = [_matrix(update).split(group["block"]) for update in updates]
        made = together(list(chain.from_iterable(blocks)), group["iterations"])
        directions = [
            torch.cat(list(islice(made, len(own)))).view_as(parameter)
            for own, parameter in zip(blocks, parameters, strict=True)
        ]
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_sub_(parameters, directions, alpha=lr)

    def _adamw(self, moved: Sequence[tuple[Tensor, Tensor]], group: Mapping[str, Any]) -> None:
        for parameter, _ in moved:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter, _ in moved]
        adamw(
            [parameter for parameter, _ in moved],
            [gradient for _, gradient in moved],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            foreach=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def together(matrices: Sequence[Tensor], iterations: int) -> Iterator[Tensor]:
    """For each matrix the orthogonal one in its place, times ``0.2 * sqrt(longer side)``.

    On a GPU those of one shape are computed as one: by themselves they are too small for it.
    """
    if matrices[0].device.type == "cpu":
        return (orthogonal(matrix, iterations) * (0.2 * math.sqrt(max(matrix.shape))) for matrix in matrices)
    shapes: dict[torch.Size, list[int]] = {}
    for place, matrix in enumerate(matrices):
        shapes.setdefault(matrix.shape, []).append(place)
    made: dict[int, Tensor] = {}
    for shape, places in shapes.items():
        found = orthogonal(torch.stack([matrices[place] for place in places]), iterations)
        made |= zip(places, found * (0.2 * math.sqrt(max(shape))), strict=True)
    return (made[place] for place in range(len(matrices)))


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """The nearest (semi-)orthogonal matrix, or of (N, rows, columns) each, roughly: singular values become 0.7 to 1.2.

    Newton-Schulz multiplies by polynomials of the Gram matrix, which commute: they are gathered in one small matrix, so
    that the long side of a kernel is passed over twice in all, not twice an iteration.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    multiply_add = torch.addmm if matrix.ndim == 2 else torch.baddbmm
    wide = matrix.mT if tall else matrix
    wide = wide / (torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    gram = wide @ wide.mT
    product: Tensor | None = None
    for iteration in range(iterations):
        factor = multiply_add(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if iteration < iterations - 1:
            gram = factor @ gram @ factor
    assert product is not None
    result: Tensor = product @ wide
    return result.mT if tall else result


def _matrix(kernel: Tensor) -> Tensor:
    return kernel.reshape(kernel.shape[0], -1)
