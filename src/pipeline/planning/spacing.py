"""The grid on which a network works: target spacing, and the median image on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pipeline.config.schema_planning import Planning
from pipeline.data.fingerprint import Fingerprint
from pipeline.planning.axes import in_order
from pipeline.planning.measured import percentile, reference_grid, rounded, times


@dataclass(frozen=True)
class Resolution:
    """``spacing``: mm per axis, or pixels. ``shape``: voxels of the median image there, cropped to what is not zero.

    ``coarse``: the axis whose spacing is a low percentile instead of the median, None where there is none.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    coarse: int | None


def plan_resolution(fingerprint: Fingerprint, rules: Planning) -> Resolution:
    """Choose the target spacing.

    The median; along a coarse axis (far longer voxels, far fewer of them) a low percentile, so that thin-sliced cases
    do not lose most of their slices, but never below the spacing of the other axes.
    Source: Isensee et al. 2021, and nnU-Net v2 (``determine_fullres_target_spacing``).
    """
    grid = reference_grid(fingerprint)
    spacing = [axis.median for axis in grid.spacing]
    coarse = coarse_axis(spacing, [axis.median for axis in grid.cropped_shape], rules.coarse_factor)
    if coarse is not None:
        others = max(value for axis, value in enumerate(spacing) if axis != coarse)
        spacing[coarse] = max(percentile(grid.spacing[coarse], rules.coarse_percentile), others)
    target = tuple(rounded(value) for value in spacing)
    shape = tuple(max(1, round(size.median / mm)) for size, mm in zip(grid.cropped_size, target, strict=True))
    return Resolution(target, shape, coarse)


def why_spacing(fingerprint: Fingerprint, rules: Planning, coarse: int | None, order: Sequence[int]) -> str:
    """The reason for the target spacing; ``order``: of the axes in its numbers."""
    grid, unit = reference_grid(fingerprint), fingerprint.unit
    why = f"median of {grid.cases} cases"
    if coarse is not None:
        low = percentile(grid.spacing[coarse], rules.coarse_percentile)
        median = times(in_order([axis.median for axis in grid.spacing], order))
        return why + (
            f" ({median} {unit}); {fingerprint.axes[coarse]} is "
            f"coarse (over {rules.coarse_factor:g} times the spacing, under 1/{rules.coarse_factor:g} of the voxels of "
            f"the others), so its {rules.coarse_percentile:g}th percentile, {low:.4g}, not below the others"
        )
    if len(order) == 3:
        voxels = times(in_order([axis.median for axis in grid.cropped_shape], order))
        return f"{why}; no axis is coarse: {voxels} voxels in the median"
    return why


def coarse_axis(spacing: list[float], voxels: list[float], factor: float) -> int | None:
    """The axis that is coarse in a volume, None where there is none."""
    if len(spacing) != 3:
        return None
    axis = max(range(3), key=lambda axis: spacing[axis])
    others = [other for other in range(3) if other != axis]
    long = spacing[axis] > factor * max(spacing[other] for other in others)
    few = voxels[axis] * factor < min(voxels[other] for other in others)
    return axis if long and few else None


def nonzero_share(fingerprint: Fingerprint) -> float:
    """Share of the median image that the crop to what is not zero leaves."""
    grid = reference_grid(fingerprint)
    whole = prod(axis.median for axis in grid.shape)
    return prod(axis.median for axis in grid.cropped_shape) / whole
