"""Fingerprints made by hand, as those of data sets whose plans are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.data.fingerprint.model import (
    ClassMeasures,
    Fingerprint,
    FingerprintSettings,
    Grid,
    Group,
    Intensities,
    Pooled,
    Spread,
)


def spread(median: float, low: float | None = None, high: float | None = None, cases: int = 10) -> Spread:
    """One number per case; ``low`` is the 10th percentile and the lowest, ``high`` the 90th and the highest."""
    low, high = median if low is None else low, median if high is None else high
    percentiles = {"0.5": low, "10": low, "90": high, "99.5": high}
    return Spread(count=cases, mean=median, std=0.0, min=low, median=median, max=high, percentiles=percentiles)


def intensities(
    *,
    lowest: float = 0.0,
    stored: str = "float32",
    foreground: tuple[float, float, float, float] | None = (10.0, 90.0, 50.0, 20.0),
    cases: int = 10,
) -> Intensities:
    """``foreground``: 0.5th percentile, 99.5th, mean, standard deviation."""

    def pooled(low: float, high: float, mean: float, std: float, least: float) -> Pooled:
        return Pooled(
            mean=mean, std=std, min=least, median=mean, max=high, percentiles={"0.5": low, "50": mean, "99.5": high}
        )

    return Intensities(
        cases=cases,
        stored={stored: cases},
        ranges={"wider": cases},
        image=pooled(lowest, 100.0, 20.0, 30.0, lowest),
        foreground=None if foreground is None else pooled(*foreground, foreground[0]),
        by_case={},
    )


def fingerprint(
    spacing: Sequence[float],
    shape: Sequence[int],
    *,
    cases: int = 100,
    thin: Mapping[int, float] | None = None,
    cropped: Sequence[int] | None = None,
    channels: Mapping[str, Intensities] | None = None,
    grid_cases: Mapping[str, int] | None = None,
    classes: Sequence[str] = ("organ",),
    targets: Mapping[str, int] | None = None,
    unit: Literal["mm", "px"] = "mm",
) -> Fingerprint:
    """A data set in which most images have one grid; ``thin``: the 10th percentile of the spacing of an axis."""
    dims = len(spacing)
    channels = channels or {"image": intensities()}
    cropped = cropped or shape
    mm = tuple(spread(value, (thin or {}).get(axis), cases=cases) for axis, value in enumerate(spacing))

    def extents(counts: Sequence[int]) -> tuple[Spread, ...]:
        return tuple(spread(count * value, cases=cases) for count, value in zip(counts, spacing, strict=True))

    part = ClassMeasures(annotated=cases, present=cases, voxels=1, share=0.1, volume=None, components=None, touching=0)
    grids = {
        name: Grid(
            cases=(grid_cases or {}).get(name, cases),
            spacing=mm,
            shape=tuple(spread(float(count), cases=cases) for count in shape),
            size=extents(shape),
            cropped_shape=tuple(spread(float(count), cases=cases) for count in cropped),
            cropped_size=extents(cropped),
            anisotropy=spread(max(spacing) / min(spacing)),
            orientations={},
        )
        for name in dict.fromkeys(name.partition("[")[0] for name in channels)
    }
    axes = {(2, "px"): ("row", "column"), (2, "mm"): ("x", "y"), (3, "px"): ("x", "y", "z"), (3, "mm"): ("R", "A", "S")}
    return Fingerprint(
        version=1,
        name="by hand",
        task="segmentation" if targets is None else "classification",
        spatial_dims=2 if dims == 2 else 3,
        unit=unit,
        axes=axes[dims, unit],
        data_hash="0123456789abcdef",
        settings=FingerprintSettings(),
        overall=Group(
            cases=cases,
            patients=cases,
            grids=grids,
            intensities=dict(channels),
            classes=dict.fromkeys(classes, part) if targets is None else {},
            regions={},
            ignored_share=0.0,
            targets=dict(targets or {}),
        ),
        sites={},
    )
