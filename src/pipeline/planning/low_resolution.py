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
    """A grid so coarse that a patch shows ``enough`` (a share) of the median image; the full one where it does there.

    ``full``, ``shape``: voxels of the median image on the full grid and on this one, of ``spacing`` (mm). ``share``: of
    the median image in a patch on the full grid. ``patch``: on this grid. ``worth``: whether it has few enough voxels.
    """

    full: tuple[int, ...]
    share: float
    enough: float
    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    patch: tuple[int, ...]
    worth: bool

    def words(self, order: Sequence[int]) -> str:
        """The numbers, axes in this order."""
        percent = 100 * min(self.share, 1)
        part = f"{percent:.1g}%" if percent < 1 else f"{percent:.0f}%"
        shown = f"the patch holds {part} of the median image of {times(in_order(self.full, order))} voxels"
        if self.share >= self.enough:
            return f"{shown}, {self.enough:.0%} or more"
        at, patch = times(in_order(self.spacing, order)), times(in_order(self.patch, order))
        fewer = prod(self.full) / prod(self.shape)
        return (
            f"{shown}, less than {self.enough:.0%}; at {at} mm a patch of {patch} holds {self.enough:.0%}, "
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
    coarse, image = list(spacing), list(shape)
    while prod(patch.size) < enough * prod(image):
        behind = [max(coarse) / mm > 2 for mm in coarse]
        coarse = [mm * rule.step if late or not any(behind) else mm for mm, late in zip(coarse, behind, strict=True)]
        image = [max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, coarse, strict=True)]
        patch = patch_of(coarse, image)
    worth = share < enough and prod(shape) >= rule.gain * prod(image)
    grid = tuple(rounded(mm) for mm in coarse)
    return LowResolution(tuple(shape), share, enough, grid, tuple(image), patch.size, worth)
