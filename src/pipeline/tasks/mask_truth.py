"""What the mask of a batch teaches: classes or regions, and only what is annotated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.labels import IGNORED, Labels

ABSENT = -1e4  # logit of a class that cannot be: its probability is 0 in float32


class MaskTruth(nn.Module):
    """Turns class indices into what the loss compares with.

    Classes exclude each other: the truth stays an index. A case that annotates only some of them says nothing about
    the rest, which may stand where its mask shows background: their probability is added to that of the background
    (marginal loss, Shi et al., Medical Image Analysis 2021). Regions become one channel each; a region that a case does
    not annotate is left out of the loss.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.ignoring = labels.ignore is not None
        table = torch.zeros(0, IGNORED + 1)
        if labels.regions is not None:
            table = torch.zeros(len(labels.parts), IGNORED + 1)
            for row, part in zip(table, labels.parts.values(), strict=True):
                row[list(part)] = 1
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)

    def forward(self, label: Tensor, annotated: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Truth and validity for the loss.

        ``label``: (B, 1, *spatial) uint8 class indices. ``annotated``: (B, outputs) bool, or None where every case
        annotates everything.
        """
        valid = label != IGNORED if self.ignoring else None
        if not len(self.table):
            return label, valid
        target = self.table.t()[label[:, 0].long()].movedim(-1, 1)
        if annotated is not None:
            known = annotated.view(*annotated.shape, *[1] * (label.ndim - 2)).expand_as(target)
            valid = known if valid is None else known & valid
        return target, valid

    def reduce(self, outputs: Any, annotated: Tensor | None) -> Any:
        """Logits (or a list of them) as if the classes that a case does not annotate were part of its background."""
        if annotated is None or len(self.table) or bool(annotated.all()):
            return outputs
        if isinstance(outputs, Tensor):
            return add_to_background(outputs, annotated)
        return [add_to_background(output, annotated) for output in outputs]


def add_to_background(logits: Tensor, annotated: Tensor) -> Tensor:
    """Logits (B, C, *spatial) in which the classes that are not ``annotated`` (B, C) have joined class 0."""
    absent = ~annotated.view(*annotated.shape, *[1] * (logits.ndim - 2))
    joined = absent.clone()
    joined[:, 0] = True
    background = torch.logsumexp(logits.masked_fill(~joined, -torch.inf), dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(absent[:, 1:], ABSENT)], dim=1)
