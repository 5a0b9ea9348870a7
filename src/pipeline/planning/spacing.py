"""The grid on which a network works: target spacing, and the median image on it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pipeline.config.schema_planning import Planning
from pipeline.data.fingerprint import Fingerprint
from pipeline.planning.axes import axis_order, in_order
from pipeline.planning.measured import percentile, reference_grid, rounded, times


@dataclass(frozen=True)
class Resolution:
    """``spacing``: mm per axis, or pixels. ``shape``: voxels of the median image there, cropped to what is not zero.

    ``coarse``: the axis whose spacing is a low percentile instead of the median, None where there is none. ``order``:
    the axes as the plan has them; all else is in the fingerprint's order.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    coarse: int | None
    order: tuple[int, ...]
    why: str


def plan_resolution(fingerprint: Fingerprint, rules: Planning) -> Resolution:
    """Choose the target spacing.

    The median; along a coarse axis (far longer voxels, far fewer of them) a low percentile, so that thin-sliced cases
    do not lose most of their slices, but never below the spacing of the other axes.
    Source: Isensee et al. 2021, and nnU-Net v2 (``determine_fullres_target_spacing``).
    """
    grid, unit = reference_grid(fingerprint), fingerprint.unit
    spacing = [axis.median for axis in grid.spacing]
    voxels = [axis.median for axis in grid.cropped_shape]
    order = tuple(range(len(spacing)))
    if len(spacing) == 3 and unit == "mm":
        order = axis_order([round(size.median / mm) for size, mm in zip(grid.size, spacing, strict=True)], rules.short_axis)
    why = f"median of {grid.cases} cases"
    coarse = coarse_axis(spacing, voxels, rules.coarse_factor)
    if coarse is not None:
        others = max(value for axis, value in enumerate(spacing) if axis != coarse)
        low = percentile(grid.spacing[coarse], rules.coarse_percentile)
        name = fingerprint.axes[coarse]
        why += (
            f" ({times(in_order(spacing, order))} {unit}); {name} is coarse (over {rules.coarse_factor:g} times the spacing, under "
            f"1/{rules.coarse_factor:g} of the voxels of the others), so its {rules.coarse_percentile:g}th percentile, "
            f"{low:.4g}, not below the others"
        )
        spacing[coarse] = max(low, others)
    elif len(spacing) == 3:
        why += f"; no axis is coarse: {times(in_order(voxels, order))} voxels in the median"
    target = tuple(rounded(value) for value in spacing)
    shape = tuple(max(1, round(size.median / mm)) for size, mm in zip(grid.cropped_size, target, strict=True))
    return Resolution(target, shape, coarse, order, why)


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
