"""Several modalities of one case as the channels of one image on one grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt

from pipeline.data.case import Case, Source
from pipeline.data.image_io import Image, read_header, read_image
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.preprocessing import Prepared

SAME_MM = 1e-4  # affines that differ by less are one grid


def reference_source(case: Case, modalities: Sequence[str]) -> Source:
    """The file whose voxel grid is that of the case: the first modality, or the mask that was drawn on it.

    Where the case has neither, its first image.
    """
    first = case.images.get(modalities[0]) if modalities else None
    if first is not None:
        return first
    if case.label is not None and len(modalities) > 1:
        return case.label
    return next(iter(case.images.values()))


def read_modalities(
    case: Case, modalities: Sequence[str], *, missing_voxels: str = "error"
) -> tuple[Image, tuple[int, ...]]:
    """All modalities of a case as channels, and the channels of those it lacks, which are zero.

    A modality on another grid is resampled linearly in physical space onto that of ``reference_source``; outside of
    what it shows it has its lowest value. With several modalities each has one channel. Raises UserError.
    """
    if len(modalities) < 2:
        (source,) = case.images.values()
        return _read(source, missing_voxels), ()
    reference = reference_source(case, modalities)
    header = read_header(reference)
    channels: list[NDArray[np.float32]] = []
    absent: list[int] = []
    for channel, modality in enumerate(modalities):
        if modality not in case.images:
            absent.append(channel)
            channels.append(np.zeros(header.shape, np.float32))
            continue
        source = case.images[modality]
        image = _read(source, missing_voxels)
        if len(image.array) != 1:
            raise UserError(f"{source.path}: has {len(image.array)} channels; one of several modalities has one")
        channels.append(onto_grid(image, header.affine, header.shape))
    return Image(np.stack(channels), header.affine, header.spatial_dims), tuple(absent)


def onto_grid(image: Image, affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float32]:
    """The first channel of ``image`` on another grid, (*shape) float32, by linear interpolation in physical space.

    ``affine``: (4, 4), or (3, 3) in 2D, voxel index to world, mm. Outside of the image is its lowest value.
    """
    voxels = np.asarray(image.array[0], dtype=np.float32)
    if voxels.shape == tuple(shape) and np.allclose(image.affine, affine, atol=SAME_MM):
        return voxels
    matrix = np.linalg.inv(image.affine) @ affine  # voxel index of the new grid -> of the image
    dims = voxels.ndim
    resampled: NDArray[np.float32] = affine_transform(
        voxels,
        matrix[:dims, :dims],
        matrix[:dims, -1],
        tuple(shape),
        order=1,
        mode="constant",
        cval=float(voxels.min()),
    )
    return resampled


def fill_nonfinite(array: NDArray[np.generic], policy: str) -> NDArray[np.generic]:
    """Values for voxels that are NaN or infinite, per channel of (C, *spatial).

    ``fill``: the lowest finite value of the channel; ``interpolate``: the value of the nearest finite voxel. Raises
    ValueError for ``error``, and where a channel has no finite voxel.
    """
    if array.dtype.kind != "f":
        return array
    finite = np.isfinite(array)
    if finite.all():
        return array
    if policy == "error":
        raise ValueError(f"{int(array.size - finite.sum()):,} voxels are not finite (NaN or infinite)")
    filled = array.copy()
    for channel, known in zip(filled, finite, strict=True):
        if not known.any():
            raise ValueError("no voxel of a channel is finite")
        if policy == "fill":
            channel[~known] = channel[known].min()
        else:
            nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
            channel[...] = channel[tuple(nearest)]
    return filled


def channel_means(prepared: Iterable[Prepared]) -> list[float]:
    """Mean voxel of each channel over the cases that have it, each case counted once; 0 where none has."""
    known: dict[int, list[float]] = {}
    channels = 0
    for case in prepared:
        channels = len(case.image)
        for channel, voxels in enumerate(case.image):
            if channel not in case.absent:
                known.setdefault(channel, []).append(float(np.mean(voxels, dtype=np.float64)))
    return [float(np.mean(known[channel])) if channel in known else 0.0 for channel in range(channels)]


def _read(source: Source, missing_voxels: str) -> Image:
    image = read_image(source)
    try:
        return Image(fill_nonfinite(image.array, missing_voxels), image.affine, image.spatial_dims)
    except ValueError as error:
        raise UserError(f"{source.path}: {error}", "set data.missing.voxels=fill or interpolate") from error
