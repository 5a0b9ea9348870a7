"""The rules of drift: each compares one property of new images with that of the training cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.data.fingerprint.limits import DriftSettings, Limits
from pipeline.data.fingerprint.measure import ChannelMeasure, GridMeasure
from pipeline.data.fingerprint.model import FingerprintSettings, Grid, Intensities, Unit
from pipeline.data.fingerprint.summarise import features

Rule = Literal["spacing", "size", "values", "intensity"]

NAMES = {
    "mean": "mean intensity",
    "std": "contrast (standard deviation)",
    "low": "darkest intensities ({low:g} percentile)",
    "median": "median intensity",
    "high": "brightest intensities ({high:g} percentile)",
    "lowest_share": "share of voxels with the lowest value",
}
MEDIAN_ONLY = ("lowest_share",)  # its tail is too long to judge a single file


@dataclass(frozen=True)
class Finding:
    """One quantity in which inputs differ from the training cases.

    ``image``: modality or channel. ``files``: inputs outside of the limits for one, worst first; ``inputs``: how many
    were compared. ``value``: of the worst input; ``training``: lowest and highest training case. Where the inputs
    differ together, ``median`` is theirs, and ``central`` what most training cases lie between. ``strength``: distance
    from the limit in its units.
    """

    rule: Rule
    image: str
    quantity: str
    files: tuple[str, ...]
    inputs: int
    worst: str
    value: float
    training: tuple[float, float]
    median: float | None
    central: tuple[float, float]
    strength: float
    text: str


def compare_grids(
    modality: str,
    training: Grid,
    found: Sequence[tuple[str, GridMeasure]],
    settings: DriftSettings,
    axes: Sequence[str],
    unit: Unit,
) -> Iterator[Finding]:
    """Voxel size and extent along each axis; pictures have an extent only."""
    for place, axis in enumerate(axes):
        if unit == "mm":
            limits = Limits.by_factor(training.spacing[place], settings, settings.spacing_factor)
            values = [(file, grid.spacing[place]) for file, grid in found]
            yield from outside("spacing", modality, f"spacing along {axis}", " mm", values, limits, settings)
        extent = training.size[place] if unit == "mm" else training.shape[place]
        limits = Limits.by_factor(extent, settings, settings.size_factor)
        values = [(file, grid.size[place] if unit == "mm" else float(grid.shape[place])) for file, grid in found]
        name = f"size in {axis}s" if axis in ("row", "column") else f"size along {axis}"
        yield from outside("size", modality, name, f" {unit}", values, limits, settings)


def compare_intensities(
    channel: str,
    training: Intensities,
    found: Sequence[tuple[str, ChannelMeasure]],
    settings: DriftSettings,
    measured: FingerprintSettings,
) -> Iterator[Finding]:
    """What the values lie in, and the statistics of each image."""
    yield from other_values(channel, training, found)
    by_file = [(file, features(image.image, measured)) for file, image in found]
    contrast = training.by_case["high"].median - training.by_case["low"].median
    low, high = measured.percentiles[0], measured.percentiles[-1]
    for feature, name in NAMES.items():
        limits = Limits.by_width(training.by_case[feature], settings, 1.0 if feature == "lowest_share" else contrast)
        values = [(file, of[feature]) for file, of in by_file]
        name = name.format(low=low, high=high)
        yield from outside("intensity", channel, name, "", values, limits, settings, feature not in MEDIAN_ONLY)


def other_values(channel: str, training: Intensities, found: Sequence[tuple[str, ChannelMeasure]]) -> Iterator[Finding]:
    """Values of pictures (0..255), of normalised images (0..1) or wider ones, where no training case has such."""
    other = [(file, image.image) for file, image in found if image.image.extent not in training.ranges]
    if not other:
        return
    name, image = max(other, key=lambda pair: pair[1].max - pair[1].min)
    known = " or ".join(training.ranges)
    lowest, highest = training.image.min, training.image.max
    yield Finding(
        rule="values",
        image=channel,
        quantity="range of values",
        files=tuple(file for file, _ in other),
        inputs=len(found),
        worst=name,
        value=image.max,
        training=(lowest, highest),
        median=None,
        central=(lowest, highest),
        strength=1.0,
        text=f"{channel}: range of values: {counted(len(other), len(found))} in other units, or rescaled "
        f"(training {_between((lowest, highest))}, {known}): worst {name} with {_between((image.min, image.max))}, "
        f"{image.extent}",
    )


def outside(
    rule: Rule,
    image: str,
    quantity: str,
    unit: str,
    values: Sequence[tuple[str, float]],
    limits: Limits,
    settings: DriftSettings,
    by_file: bool = True,
) -> Iterator[Finding]:
    """A finding where files lie outside of the limits for one, or all of them together outside of those for many."""
    ranked = sorted(values, key=lambda pair: -limits.beyond(pair[1], limits.central))
    far = [limits.beyond(value, limits.case) if by_file else 0.0 for _, value in ranked]
    files = tuple(file for (file, _), distance in zip(ranked, far, strict=True) if distance > 0)
    median = float(np.median([value for _, value in values]))
    moved = limits.beyond(median, limits.median) if len(values) >= settings.median_files else 0.0
    if not files and not moved:
        return
    worst, value = ranked[0]
    if moved:
        share = settings.central[1] - settings.central[0]
        others = sum(limits.beyond(value, limits.central) > 0 for _, value in values)
        said = f"{counted(others, len(values))} outside of the central {share:g} % of the training cases "
        said += f"({_between(limits.central)}{unit}): median {median:.4g}{unit}, worst {worst} with {value:.4g}{unit}"
    else:
        said = f"{counted(len(files), len(values))} outside of the training cases ({_between(limits.range)}{unit}): "
        said += f"worst {worst} with {value:.4g}{unit}"
    yield Finding(
        rule=rule,
        image=image,
        quantity=quantity,
        files=files,
        inputs=len(values),
        worst=worst,
        value=value,
        training=limits.range,
        median=median if moved else None,
        central=limits.central,
        strength=max(moved, *far),
        text=f"{image}: {quantity}: {said}",
    )


def counted(files: int, inputs: int) -> str:
    """``3 of 40 files``."""
    return f"{files} of {inputs} file{'' if inputs == 1 else 's'}"


def _between(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4g} to {pair[1]:.4g}"
