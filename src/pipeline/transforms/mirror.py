"""Random mirroring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.transforms.batch import BatchTransform
from pipeline.transforms.draws import checked_probability

INDICES = 256  # of 8-bit labels
AUTO, LEFT_RIGHT = "auto", "left_right"
NO_SIDES: Mapping[str, Any] = {"axes": [], "paired": False, "swaps": []}


def mirrored_axes(axes: Sequence[int] | str | None, sides: Mapping[str, Any], *, swap: bool = False) -> tuple[int, ...]:
    """The spatial axes of three that :class:`RandomMirror` mirrors; an image of two has no third. Raises ValueError."""
    spared = () if swap or not sides["paired"] else sides["axes"]
    if axes == LEFT_RIGHT:  # where images differ in that axis, another would be mirrored in some
        return () if spared or len(sides["axes"]) != 1 else tuple(sides["axes"])
    if axes == AUTO:
        return tuple(axis for axis in range(3) if axis not in spared)
    if isinstance(axes, str) or not set(axes or ()) <= {0, 1, 2}:
        given = axes if isinstance(axes, str) else list(axes or ())
        raise ValueError(f"axes {given} must be of 0, 1 and 2, or {AUTO} or {LEFT_RIGHT}")
    return (0, 1, 2) if axes is None else tuple(axes)


def mirror(tensor: Tensor, axes: Sequence[int]) -> None:
    """Reverse the spatial ``axes`` (from 0) of ``tensor`` (C, *spatial) in place."""
    if axes:
        tensor.copy_(tensor.flip([axis + 1 for axis in axes]))


def exchange(label: Tensor, pairs: Sequence[Sequence[int]]) -> None:
    """Exchange the two class indices of every pair in ``label``, any shape and integer type, in place."""
    places = torch.arange(INDICES, device=label.device)
    for first, second in pairs:
        places[first], places[second] = second, first
    label.copy_(places[label.long()])


class RandomMirror(BatchTransform):
    """Mirrors each of the spatial ``axes`` with probability ``prob``; null: all axes there are.

    ``left_right``: the axis from left to right only, along which bodies are nearly symmetric. ``auto``: all axes.
    Neither mirrors from left to right where classes are pairs of left and right. ``sides`` says where that is:
    ``${derived.sides}``. ``swap``: mirror along it all the same, and exchange the paired classes of the label.
    """

    def __init__(
        self,
        prob: float,
        axes: Sequence[int] | Literal["auto", "left_right"] | None = None,
        sides: Mapping[str, Any] | None = None,
        swap: bool = False,
    ) -> None:
        self.prob = checked_probability("prob", prob)
        if (axes in (AUTO, LEFT_RIGHT) or swap) and sides is None:
            raise ValueError(f"{'swap' if swap else f'axes: {axes}'} needs to know the sides: ${{derived.sides}}")
        sides = sides or NO_SIDES
        self.sides = tuple(sides["axes"])
        self.swaps = tuple(map(tuple, sides["swaps"])) if swap else ()
        if swap and sides["paired"] and (not self.swaps or len(self.sides) != 1):
            why = "images differ in the axis from left to right" if self.swaps else "not every mask has both of a pair"
            raise ValueError(f"swap: paired classes cannot be exchanged, {why}")
        self.axes = mirrored_axes(axes, sides, swap=swap)

    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Mirror one sample; see :class:`BatchTransform`. An axis that the image has not is left out."""
        drawn = rng.random(3) < self.prob
        dims = image.ndim - 1
        axes = [axis for axis in range(dims) if drawn[axis] and axis in self.axes]
        mirror(image, axes)
        if label is not None:
            mirror(label, axes)
            if self.swaps and self.sides[0] in axes:
                exchange(label, self.swaps)
