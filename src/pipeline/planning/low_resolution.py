"""Whether a coarser grid would be worth it, and which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from pipeline.config.schema_planning import Planning
from pipeline.planning.axes import in_order
from pipeline.planning.measured import rounded, times
from pipeline.planning.patch import Patch

PatchOf = Callable[[Sequence[float], Sequence[int]], Patch]  # of a grid: spacing and voxels of the median image


@dataclass(frozen=True)
class LowResolution:
    """A coarser grid beside the full one, of which a patch shows too little.

    ``shape``: of the median image in voxels. ``spacing`` (mm), ``coarse`` (its shape there) and ``patch`` (there):
    None where the patch shows enough of the median image. ``enough``: the share that is. ``worth``: whether the coarser
    image has few enough voxels.
    """

    shape: tuple[int, ...]
    share: float
    enough: float
    worth: bool = False
    spacing: tuple[float, ...] | None = None
    coarse: tuple[int, ...] | None = None
    patch: tuple[int, ...] | None = None

    def words(self, order: Sequence[int]) -> str:
        """The numbers, axes in this order."""
        percent = 100 * min(self.share, 1)
        part = f"{percent:.1g}%" if percent < 1 else f"{percent:.0f}%"
        shown = f"the patch holds {part} of the median image of {times(in_order(self.shape, order))}"
        if self.spacing is None or self.coarse is None or self.patch is None:
            return f"{shown} voxels, {self.enough:.0%} or more"
        at, patch = times(in_order(self.spacing, order)), times(in_order(self.patch, order))
        fewer = prod(self.shape) / prod(self.coarse)
        return (
            f"{shown} voxels, less than {self.enough:.0%}; at {at} mm a patch of {patch} holds {self.enough:.0%}, "
            f"with 1/{fewer:.2g} of the voxels"
        )


def low_resolution(
    spacing: Sequence[float], shape: Sequence[int], patch_of: PatchOf, rules: Planning, enough: float | None = None
) -> LowResolution:
    """Whether nnU-Net would add a low-resolution stage (a cascade) for patches as ``patch_of`` gives them.

    It does where the patch shows too little of the median image (less than ``enough``, None: nnU-Net's share); the grid
    is then coarsened until the patch shows enough, the finest axes first.
    Source: Isensee et al. 2021, and nnU-Net v2 (``plan_experiment``).
    """
    rule, patch = rules.low_resolution, patch_of(spacing, shape)
    enough = rule.share if enough is None else enough
    share = prod(patch.size) / prod(shape)
    if share >= enough:
        return LowResolution(tuple(shape), share, enough)
    coarse, image = list(spacing), list(shape)
    while prod(patch.size) < enough * prod(image):
        behind = [max(coarse) / mm > 2 for mm in coarse]
        coarse = [mm * rule.step if late or not any(behind) else mm for mm, late in zip(coarse, behind, strict=True)]
        image = [max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, coarse, strict=True)]
        patch = patch_of(coarse, image)
    return LowResolution(
        tuple(shape),
        share,
        enough,
        prod(shape) >= rule.gain * prod(image),
        tuple(rounded(mm) for mm in coarse),
        tuple(image),
        patch.size,
    )
