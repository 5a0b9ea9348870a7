"""Grids: shapes, affines, dimensions and channels that do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from pipeline.data.case import Case, Source
from pipeline.data.image_io.image import spacing_of
from pipeline.data.integrity.reading import Reading
from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.view import View, affine_of

MOST_SHEAR = 0.01  # cosine between axes, 0.6 degrees; a rotation in float32 stays far below

FEWEST = 3  # cases from which the usual is known
FEW = 0.25  # part of the usual overlap; less is reported


def doubtful_header(view: View) -> Iterator[Fault]:
    """A header says something that is legal but often wrong."""
    for case in view.dataset.cases:
        for source, _, reading in view.sources(case):
            for doubt in reading.doubts:
                yield view.fault("warning", case, source, doubt, "compare with the original scan", "header")


def sheared(view: View) -> Iterator[Fault]:
    """The axes of a volume do not stand at right angles: a gantry tilt, or an affine gone wrong."""
    for case in view.dataset.cases:
        for source, _, reading in view.sources(case):
            if reading.fault is None and len(reading.shape) == 3:
                axes = affine_of(reading)[:3, :3]
                axes = axes / np.sqrt((axes**2).sum(axis=0))
                cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
                if cosine > MOST_SHEAR:
                    angle = 90 - np.degrees(np.arcsin(min(1.0, cosine)))
                    fault = f"affine is sheared: two axes meet at {angle:.1f} degrees, not at a right angle"
                    yield view.fault("warning", case, source, fault, "correct the gantry tilt before use", "sheared")


def dimensions(view: View) -> Iterator[Fault]:
    """Images of another dimension or number of channels than the data set, masks with several channels."""
    dataset = view.dataset
    for case in dataset.cases:
        readings = view.images(case)
        for source, reading in readings:
            if len(reading.shape) != dataset.spatial_dims:
                fault = f"is {len(reading.shape)}D (shape {reading.shape}); the data set is {dataset.spatial_dims}D"
                yield view.fault("error", case, source, fault, "take it out, or set data.spatial_dims", "dimensions")
        channels = sum(reading.channels for _, reading in readings)
        if len(dataset.modalities) > 1:
            for source, reading in readings:
                if reading.channels != 1:
                    fault = f"has {reading.channels} channels; one of several modalities has one"
                    yield view.fault("error", case, source, fault, "save its channels as modalities", "channels")
        elif len(readings) == len(case.images) and channels != dataset.channels:
            kind = "4D image with " if dataset.spatial_dims == 3 and channels > 1 else ""
            fault = f"{kind}{channels} channels; the data set has {dataset.channels}"
            remedy = "save each case with the same channels"
            yield view.fault("error", case, readings[0][0], fault, remedy, "channels")
    for case, source, reading in view.masks:
        if reading.channels != 1:
            fault = f"the mask has {reading.channels} channels (shape {reading.shape}); one is expected"
            yield view.fault("error", case, source, fault, "save one class value per voxel", "channels")


def same_grid(view: View) -> Iterator[Fault]:
    """A mask must share shape and affine with its image: else every voxel is shifted in silence.

    Of several modalities the mask belongs to the reference (the first); the others are resampled onto its grid, so
    they may have grids of their own, but must show the same part of the body.
    """
    for case in view.dataset.cases:
        images = dict(zip(case.images, [(source, reading) for source, _, reading in view.sources(case)], strict=False))
        reference = next((images[name] for name in view.dataset.modalities if name in images), None)
        if reference is None or reference[1].fault is not None:
            continue
        source, expected = reference
        mask = view.mask(case)
        if case.label is not None and mask is not None and view.dataset.modalities[0] in case.images:
            yield from _mask_grid(view, case, mask, source, expected)
        for other, reading in images.values():
            if other is source or reading.fault is not None or len(reading.shape) != len(expected.shape):
                continue
            if overlap(expected, reading) <= 0:
                fault = f"shows another place than {source.name}: their grids do not meet in space"
                remedy = "register it to the reference modality, or correct its affine"
                yield view.fault("error", case, other, fault, remedy, "overlap")


def little_overlap(view: View) -> Iterator[Fault]:
    """A modality covers far less of the reference than it does in the other cases: it was moved, or cut."""
    reference = view.dataset.modalities[0]
    first = {case.case_id: reading for case, _, reading in view.by_modality[reference]}
    for name, found in view.by_modality.items():
        if name == reference:
            continue
        pairs = [(*item, overlap(first[item[0].case_id], item[2])) for item in found if item[0].case_id in first]
        if len(pairs) < FEWEST:
            continue
        usual = float(np.median([part for *_, part in pairs]))
        for case, source, _, part in pairs:
            if 0 < part < FEW * usual:
                fault = f"covers {part:.0%} of {reference} in space; in most cases {name} covers {usual:.0%} (overlap)"
                remedy = "compare its affine with the original scan"
                yield view.fault("warning", case, source, fault, remedy, "little_overlap")


def _mask_grid(view: View, case: Case, mask: Reading, reference: Source, expected: Reading) -> Iterator[Fault]:
    assert case.label is not None
    if mask.shape != expected.shape:
        fault = f"shape of the mask {mask.shape} differs from that of {reference.name}, {expected.shape}"
        yield view.fault("error", case, case.label, fault, "resample it onto the grid of the image", "shape")
    elif displacement(expected, mask) > view.settings.affine_tolerance_mm:
        fault = f"affine of the mask differs from that of {reference.name}: {_difference(expected, mask)}"
        remedy = "copy the image's affine if the voxels match, else resample it onto the grid of the image"
        yield view.fault("error", case, case.label, fault, remedy, "affine")


def overlap(one: Reading, other: Reading) -> float:
    """Part of the box around ``one`` in world axes that the box around ``other`` covers, 0 to 1."""
    low, high = _box(one)
    other_low, other_high = _box(other)
    sides = np.minimum(high, other_high) - np.maximum(low, other_low)
    return float(np.prod(np.clip(sides, 0, None) / np.maximum(high - low, 1e-9)))


def _box(reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner in mm, half a voxel around the outermost centres."""
    dims = len(reading.shape)
    ends = np.array([(-0.5, size - 0.5) for size in reading.shape] + [(-0.5, 0.5)] * (3 - dims))
    corners = np.array([(*corner, 1) for corner in product(*ends)]) @ affine_of(reading).T[:, :3]
    return corners.min(axis=0), corners.max(axis=0)


def displacement(one: Reading, other: Reading) -> float:
    """Largest distance in mm between a corner voxel in the world of one affine and in that of the other."""
    sizes = [*one.shape, *[1] * (3 - len(one.shape))]
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in sizes))], dtype=float)
    apart = corners @ (affine_of(one) - affine_of(other)).T[:, :3]
    return float(np.sqrt((apart**2).sum(axis=1)).max())


def _difference(one: Reading, other: Reading) -> str:
    first, second = affine_of(one), affine_of(other)
    dims = len(one.shape)
    said = [f"up to {displacement(one, other):.4g} mm apart"]
    spacings = [tuple(round(length, 5) for length in spacing_of(affine, dims)) for affine in (first, second)]
    if spacings[0] != spacings[1]:
        said.append(f"spacing {spacings[1]} instead of {spacings[0]}")
    origins = [tuple(round(value, 4) for value in affine[:3, 3].tolist()) for affine in (first, second)]
    if origins[0] != origins[1]:
        said.append(f"origin {origins[1]} instead of {origins[0]}")
    return ", ".join(said)
