"""Whether a first stage on a coarser grid would be worth it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from pipeline.config.schema_planning import Planning
from pipeline.planning.axes import in_order
from pipeline.planning.measured import times
from pipeline.planning.patch import Patch, plan_patch


def low_resolution(
    spacing: Sequence[float],
    shape: Sequence[int],
    patch: Patch,
    classes: int,
    rules: Planning,
    memory_gb: float,
    order: Sequence[int],
) -> tuple[bool, str]:
    """Whether nnU-Net would add a low-resolution stage (a cascade), and the numbers in words.

    It does where the patch shows too little of the median image; the grid is then coarsened until the patch shows
    enough, the finest axes first. ``order``: of the axes in these words.
    Source: Isensee et al. 2021, and nnU-Net v2 (``plan_experiment``).
    """
    rule = rules.low_resolution
    share = prod(patch.size) / prod(shape)
    shown = f"the patch holds {min(share, 1):.0%} of the median image of {times(in_order(shape, order))} voxels"
    if share >= rule.share:
        return False, f"{shown}, {rule.share:.0%} or more"
    coarse, image, wide = list(spacing), list(shape), patch
    while prod(wide.size) < rule.share * prod(image):
        behind = [max(coarse) / mm > 2 for mm in coarse]
        coarse = [mm * rule.step if late or not any(behind) else mm for mm, late in zip(coarse, behind, strict=True)]
        image = [max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, coarse, strict=True)]
        wide = plan_patch(coarse, image, classes, rules, memory_gb)
    fewer = prod(shape) / prod(image)
    millimetres, size = times(in_order([float(mm) for mm in coarse], order)), times(in_order(wide.size, order))
    at = f"at {millimetres} mm a patch of {size} would hold {rule.share:.0%}"
    return fewer >= rule.gain, f"{shown}, less than {rule.share:.0%}; {at}, with 1/{fewer:.2g} of the voxels"
