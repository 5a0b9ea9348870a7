"""Muon: momentum whose update of each weight matrix is made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al. 2024


class Muon(torch.optim.Optimizer):
    """Muon for kernels and matrices of at least ``smallest`` rows and columns, AdamW for every other parameter.

    A kernel (out, in, *k) counts as a matrix (out, in * k). Its momentum (Nesterov) is replaced by the nearest
    orthogonal matrix (``iterations`` of Newton-Schulz, in bf16) times ``0.2 * sqrt(longer side)``, which gives the update the
    root mean square of AdamW's: ``lr`` and ``weight_decay`` (decoupled) mean the same for both kinds of parameters.
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
    ) -> None:
        both: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in params:
            both[min(_matrix(parameter).shape) >= smallest if parameter.ndim > 1 else False].append(parameter)
        defaults = {"lr": lr, "weight_decay": weight_decay}
        groups = [{"params": found, "orthogonal": kind} for kind, found in both.items() if found]
        super().__init__(groups, defaults)
        self.momentum, self.betas, self.eps, self.iterations = momentum, tuple(betas), eps, iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                (self._muon if group["orthogonal"] else self._adamw)(parameters, group["lr"], group["weight_decay"])
        return loss

    def _muon(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            assert parameter.grad is not None
            buffer = state["momentum"].lerp_(parameter.grad, 1 - self.momentum)
            update = _matrix(parameter.grad.lerp(buffer, self.momentum))
            direction = orthogonal(update, self.iterations).view_as(parameter)
            parameter.mul_(1 - lr * weight_decay).add_(direction, alpha=-lr * 0.2 * math.sqrt(max(update.shape)))

    def _adamw(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
        means = [self.state[parameter]["mean"] for parameter in parameters]
        squares = [self.state[parameter]["square"] for parameter in parameters]
        step = float(self.state[parameters[0]]["step"])
        torch._foreach_lerp_(means, gradients, 1 - self.betas[0])
        torch._foreach_mul_(squares, self.betas[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.betas[1])
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, math.sqrt(1 - self.betas[1] ** step))
        torch._foreach_add_(roots, self.eps)
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_addcdiv_(parameters, means, roots, -lr / (1 - self.betas[0] ** step))


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: its singular values become 0.7 to 1.2.

    Newton-Schulz multiplies by polynomials of the Gram matrix, which commute: they are gathered in one small matrix, so
    that the long side of a kernel is passed over twice in all, not twice an iteration.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    a, b, c = NEWTON_SCHULZ
    gram = wide @ wide.T
    product: Tensor | None = None
    for _ in range(iterations):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        gram = factor @ gram @ factor
    assert product is not None
    result = product @ wide
    return result.T if matrix.shape[0] > matrix.shape[1] else result


def _matrix(kernel: Tensor) -> Tensor:
    return kernel.reshape(kernel.shape[0], -1)
