"""Patch and batch that fit the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pipeline.config.schema_planning import Planning
from pipeline.errors import UserError
from pipeline.networks.topology import SMALLEST_POOLED, Steps, plan_strides
from pipeline.planning.measured import times
from pipeline.planning.memory import feature_values

ALL_STAGES = 64  # more than any patch allows


@dataclass(frozen=True)
class Patch:
    """A patch of ``size`` voxels, a multiple of what the ``strides`` of all stages divide it by.

    ``first``: the patch before it was fitted to memory. ``values``: feature-map values of the reference network for
    one patch; ``capacity``: how many of them the memory holds, for all patches of a batch.
    """

    size: tuple[int, ...]
    strides: Steps
    first: tuple[int, ...]
    values: int
    capacity: float


def plan_patch(
    spacing: Sequence[float],
    shape: Sequence[int],
    classes: int,
    rules: Planning,
    memory_gb: float,
    step_voxels: int | None = None,
    beyond_image: bool = True,
) -> Patch:
    """Choose the patch for images of ``shape`` voxels (the median) at ``spacing``.

    A patch of equal extent in mm along all axes, clipped to the median image, filled up to what the stages divide by,
    then cut along the axis that is largest relative to the image, of those not yet at 8 voxels, until the feature maps
    of the smallest batch fit, and it has at most ``step_voxels``; without ``beyond_image`` also until no axis is longer
    than the image's.
    Raises UserError where no patch fits. Source: Isensee et al. 2021, and nnU-Net v2 (``get_plans_for_configuration``).
    """
    dims, network = len(spacing), rules.reference
    capacity = network.values.of(dims) * network.batch.of(dims) * memory_gb / network.memory_gb
    edge = (rules.first_patch.of(dims) * prod(spacing)) ** (1 / dims)
    first = [min(round(edge / mm), extent) for mm, extent in zip(spacing, shape, strict=True)]
    size, strides = padded(first, spacing)
    first = list(size)

    def fits() -> bool:
        small = step_voxels is None or prod(size) * rules.fewest_batch <= step_voxels
        inside = beyond_image or all(extent <= most for extent, most in zip(size, shape, strict=True))
        return small and inside and feature_values(size, strides, classes, network) * rules.fewest_batch <= capacity

    while not fits():
        by_extent = sorted(
            range(dims), key=lambda axis: (size[axis] / shape[axis], *_first_of_equals(axis, spacing)), reverse=True
        )
        cuts = [(axis, _smaller(size, strides, axis, spacing)) for axis in by_extent]
        smaller = next((cut for axis, cut in cuts if cut[axis] >= min(SMALLEST_POOLED, shape[axis])), None)
        if smaller is None:
            raise UserError(
                f"plan.memory_gb={memory_gb:g}: {rules.fewest_batch} patches of {times(size)} voxels do not fit"
                + ("" if step_voxels is None else f", or have over {step_voxels} voxels (step_voxels of the regime)"),
                "give more memory; nnU-Net plans for 8 GB",
            )
        size, strides = padded(smaller, spacing)
    return Patch(tuple(size), strides, tuple(first), feature_values(size, strides, classes, network), capacity)


def padded(size: Sequence[int], spacing: Sequence[float]) -> tuple[list[int], Steps]:
    """The size filled up to a multiple of what its stages divide it by, and their strides."""
    strides = plan_strides(size, spacing, ALL_STAGES)
    return [-(-extent // step) * step for extent, step in zip(size, divisors(strides), strict=True)], strides


def divisors(strides: Steps) -> list[int]:
    """By what the stages divide each axis, all together."""
    return [prod(steps) for steps in zip(*strides, strict=True)]


def _first_of_equals(axis: int, spacing: Sequence[float]) -> tuple[bool, int]:
    """Which of axes that are equally large is cut first (the highest): nnU-Net's order, the coarsest last of all.

    nnU-Net takes x before y before z in a volume, columns before rows in a picture.
    """
    if len(spacing) == 2:
        return True, axis
    coarsest = max(range(3), key=lambda other: (spacing[other], other))
    return axis != coarsest, -axis


def _smaller(size: Sequence[int], strides: Steps, axis: int, spacing: Sequence[float]) -> list[int]:
    """The next smaller valid size along an axis.

    A smaller patch may be halved less often: 256 - 64 would skip 224, which five halvings suit.
    """
    trial = list(size)
    trial[axis] -= divisors(strides)[axis]
    step = divisors(plan_strides(trial, spacing, ALL_STAGES))[axis] if trial[axis] > 0 else divisors(strides)[axis]
    smaller = list(size)
    smaller[axis] -= step
    return smaller if padded(smaller, spacing)[0][axis] < size[axis] else trial


def plan_batch(
    patch: Patch, shape: Sequence[int], cases: int, rules: Planning, step_voxels: int | None = None
) -> tuple[int, str]:
    """The number of patches in a batch, and why.

    What the memory leaves, but at most a share of the voxels of the data set and ``step_voxels``.
    Source: nnU-Net v2 (``get_plans_for_configuration``).
    """
    voxels = prod(patch.size)
    limits = {f"{patch.capacity / 1e6:.0f}e6 feature values": round(patch.capacity / patch.values)}
    limits[f"{rules.covered:.0%} of the voxels of {cases} cases"] = round(prod(shape) * cases * rules.covered / voxels)
    if step_voxels is not None:
        limits[f"{step_voxels} voxels a step"] = step_voxels // voxels
    said = ", ".join(f"{count} by {limit}" for limit, count in limits.items())
    lowest = min(limits.values())
    if lowest < rules.fewest_batch:
        return rules.fewest_batch, f"the least; {said}"
    return lowest, f"the lowest of: {said}"
