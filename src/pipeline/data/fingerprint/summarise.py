"""From measurements of cases to a group of cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.data.case import Case, Dataset
from pipeline.data.fingerprint.masks import MaskMeasure, PartMeasure
from pipeline.data.fingerprint.measure import CaseMeasure, ChannelMeasure, GridMeasure
from pipeline.data.fingerprint.model import (
    ClassMeasures,
    FingerprintSettings,
    Grid,
    Group,
    Intensities,
    Pooled,
    Spread,
)
from pipeline.data.fingerprint.voxels import VoxelStatistics

Measured = Sequence[tuple[Case, CaseMeasure]]


def summarise_group(dataset: Dataset, measured: Measured, settings: FingerprintSettings) -> Group:
    """Sum up some cases of a data set."""
    labels = dataset.labels
    masks = [found.mask for _, found in measured if found.mask is not None]
    targets = Counter(case.target for case, _ in measured if case.target is not None)
    channels = dict.fromkeys(name for _, found in measured for name in found.channels)
    grids = {
        modality: [found.grids[modality] for _, found in measured if modality in found.grids]
        for modality in dataset.modalities
    }
    voxels = sum(mask.voxels for mask in masks)
    return Group(
        cases=len(measured),
        patients=len({case.patient_id for case, _ in measured}),
        grids={modality: _grid(found, settings) for modality, found in grids.items() if found},
        intensities={
            name: _intensities([found.channels[name] for _, found in measured if name in found.channels], settings)
            for name in channels
        },
        classes=_classes(measured, labels.foreground if labels else (), lambda mask: mask.classes, settings),
        regions=_classes(measured, tuple(labels.regions or ()) if labels else (), lambda mask: mask.regions, settings),
        ignored_share=sum(mask.ignored for mask in masks) / voxels if voxels else 0.0,
        targets={name: targets[name] for name in dataset.classes if name in targets},
    )


def spread(values: Sequence[float], settings: FingerprintSettings) -> Spread:
    """Sum up one number per case; at least one case."""
    array = np.asarray(values, np.float64)
    return Spread(
        count=array.size,
        mean=float(array.mean()),
        std=float(array.std()),
        min=float(array.min()),
        median=float(np.median(array)),
        max=float(array.max()),
        percentiles=_percentiles(array, settings),
    )


def pooled(found: Sequence[VoxelStatistics], settings: FingerprintSettings) -> Pooled:
    """Intensities of all cases together, each with the same weight; at least one case."""
    means = np.array([voxels.mean for voxels in found])
    squares = np.array([voxels.std for voxels in found]) ** 2 + (means - means.mean()) ** 2
    most = max(voxels.sample.size for voxels in found)
    even = np.arange(most)  # small samples are repeated, each voxel as often as the next
    sample = np.concatenate([voxels.sample[even * voxels.sample.size // most] for voxels in found])
    return Pooled(
        mean=float(means.mean()),
        std=float(np.sqrt(squares.mean())),
        min=min(voxels.min for voxels in found),
        median=float(np.median(sample)),
        max=max(voxels.max for voxels in found),
        percentiles=_percentiles(sample, settings),
    )


def features(image: VoxelStatistics, settings: FingerprintSettings) -> dict[str, float]:
    """What drift is judged by: statistics of the whole image of one case.

    ``low`` and ``high``: the outer percentiles; ``lowest_share``: share of voxels that have the lowest value.
    """
    low, median, high = image.percentile((settings.percentiles[0], 50, settings.percentiles[-1]))
    return {
        "mean": image.mean,
        "std": image.std,
        "low": low,
        "median": median,
        "high": high,
        "lowest_share": image.lowest_share,
    }


def _percentiles(values: np.ndarray, settings: FingerprintSettings) -> dict[str, float]:
    found = np.percentile(values, settings.percentiles).tolist()
    return {f"{percent:g}": value for percent, value in zip(settings.percentiles, found, strict=True)}


def _grid(grids: Sequence[GridMeasure], settings: FingerprintSettings) -> Grid:
    def per_axis(value: Callable[[GridMeasure], Sequence[float]]) -> tuple[Spread, ...]:
        return tuple(spread(axis, settings) for axis in zip(*map(value, grids), strict=True))

    return Grid(
        cases=len(grids),
        spacing=per_axis(lambda grid: grid.spacing),
        shape=per_axis(lambda grid: grid.shape),
        size=per_axis(lambda grid: grid.size),
        cropped_shape=per_axis(lambda grid: grid.cropped),
        cropped_size=per_axis(lambda grid: grid.cropped_size),
        anisotropy=spread([max(grid.spacing) / min(grid.spacing) for grid in grids], settings),
        orientations=dict(Counter(grid.orientation for grid in grids if grid.orientation).most_common()),
    )


def _intensities(channels: Sequence[ChannelMeasure], settings: FingerprintSettings) -> Intensities:
    by_case = [features(channel.image, settings) for channel in channels]
    inner = [channel.foreground for channel in channels if channel.foreground is not None]
    return Intensities(
        cases=len(channels),
        stored=dict(Counter(channel.stored for channel in channels).most_common()),
        ranges=dict(Counter(str(channel.image.extent) for channel in channels).most_common()),
        image=pooled([channel.image for channel in channels], settings),
        foreground=pooled(inner, settings) if inner else None,
        by_case={name: spread([case[name] for case in by_case], settings) for name in by_case[0]},
    )


def _classes(
    measured: Measured,
    names: Sequence[str],
    parts_of: Callable[[MaskMeasure], Mapping[str, PartMeasure]],
    settings: FingerprintSettings,
) -> dict[str, ClassMeasures]:
    masks = [(case, found.mask) for case, found in measured if found.mask is not None]
    measures = {}
    for name in names if masks else ():
        annotated = [(mask, parts_of(mask)[name]) for case, mask in masks if _annotates(case, name, names)]
        present = [(mask, part) for mask, part in annotated if part.voxels]
        voxels = sum(part.voxels for _, part in present)
        known = sum(mask.voxels - mask.ignored for mask, _ in annotated)
        volumes = [part.voxels * mask.voxel_size for mask, part in present]
        measures[name] = ClassMeasures(
            annotated=len(annotated),
            present=len(present),
            voxels=voxels,
            share=voxels / known if known else 0.0,
            volume=spread(volumes, settings) if present else None,
            components=spread([part.components for _, part in present], settings) if present else None,
            touching=sum(part.touching for _, part in present),
        )
    return measures


def _annotates(case: Case, name: str, names: Sequence[str]) -> bool:
    """Whether the mask of a case tells of ``name``; a list of other names (regions, not classes) says nothing."""
    told = case.labels_present
    return told is None or name in told or (bool(told) and not set(told) & set(names))
