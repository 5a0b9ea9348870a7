"""A regular lattice of voxels: the sample from which an image is known without being kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np

POINTS = 12_000  # of a lattice, about; an image of fewer voxels is taken whole


@lru_cache(maxsize=64)
def lattice(shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Flat positions (ascending) of lattice points in an array of ``shape`` (C order), and the lattice's shape.

    The lattice is its own mirror image along each axis, so that a mirrored array gives the mirrored sample.
    """
    counts = [1] * len(shape)
    left, points = len(shape), float(POINTS)
    for axis in sorted(range(len(shape)), key=shape.__getitem__):
        size, count = shape[axis], int(points ** (1 / left) + 1e-9)
        if count % 2 and size % 2 == 0 and count > 1:
            count -= 1  # an even axis has no middle
        counts[axis] = max(1, min(size, count))
        points /= counts[axis]
        left -= 1
    flat = np.zeros(1, np.int64)
    for size, count in zip(shape, counts, strict=True):
        first = ((2 * np.arange((count + 1) // 2) + 1) * size) // (2 * count)
        places = np.concatenate([first, (size - 1 - first)[::-1][count % 2 :]])
        flat = (flat[:, None] * size + places).ravel()
    flat.setflags(write=False)
    return flat, tuple(counts)


def digest_of(shape: tuple[int, ...], sample: np.ndarray) -> str:
    """A hash of the sample that depends neither on the type of numbers it was stored in nor on their order.

    Images whose digests differ are different, mirrored or turned ones too; those whose digests agree are compared voxel
    by voxel.
    """
    digest = hashlib.sha256(repr(sorted(size for size in shape if size > 1)).encode())
    digest.update(np.sort(np.ascontiguousarray(sample, "<f4")).data)
    return digest.hexdigest()[:24]


def drawing_of(sample: np.ndarray) -> str:
    """A hash of the sample of a mask (its values modulo 256), whatever type it was stored in; the order counts."""
    return hashlib.sha256(sample.astype(np.uint8, casting="unsafe").data).hexdigest()[:24]


def extent_of(sample: np.ndarray) -> tuple[float, ...]:
    """Along each axis of a sample (C, slowest axis, ..., fastest) the part that is left without constant planes at
    its two ends, 0 to 1."""
    return tuple(_extent(np.moveaxis(sample, axis, 0)) for axis in range(1, sample.ndim))


def _extent(planes: np.ndarray) -> float:
    count = len(planes)
    first = next((number for number in range(count) if planes[number].min() != planes[number].max()), count)
    if first == count:
        return 0.0
    last = next(number for number in reversed(range(count)) if planes[number].min() != planes[number].max())
    return (last + 1 - first) / count


def twins_of(sample: np.ndarray) -> tuple[int, ...]:
    """The first two channels of a sample (C, ...) that are equal and not constant; () where none are."""
    known: dict[bytes, int] = {}
    for number, channel in enumerate(sample):
        if channel.min() != channel.max():
            other = known.setdefault(channel.tobytes(), number)
            if other != number:
                return other, number
    return ()


def centred(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """The first channel of a sample, clipped to two percentiles and without its mean, float32."""
    grey = np.clip(image[0].astype(np.float32), low, high)
    return np.asarray(grey - grey.mean(), np.float32)


def fit_of(grey: np.ndarray, mask: np.ndarray) -> tuple[float, float, str]:
    """How well a mask fits its image: the part of the image's variance that it explains (eta squared) as given, the
    best among mirrored and transposed masks, and the name of that one.

    ``grey``: see ``centred``; ``mask``: sample on the same lattice, (1, slowest axis, ..., fastest).
    """
    inside = (mask[0] != 0).astype(np.float32)
    total, count = float(inside.size), float(inside.sum())
    variance = float(np.dot(grey.ravel(), grey.ravel()))
    if not variance or not 0 < count < total:
        return 0.0, 0.0, ""

    def share(turned: np.ndarray) -> float:
        apart = float(np.dot(grey.ravel(), turned.ravel()))
        return min(1.0, apart * apart * total / (count * (total - count)) / variance)

    best, name = max(((share(turned), name) for name, turned in _turned(inside)), default=(0.0, ""))
    return share(inside), best, name


def classes_of(grey: np.ndarray, mask: np.ndarray, values: Iterable[int]) -> dict[int, tuple[float, ...]]:
    """What the voxels of each mask value have in common: their part of the image (0 to 1), their mean brightness in
    standard deviations of the image, and their centre along each axis, fastest first, -0.5 to 0.5 from the middle.

    ``grey`` and ``mask`` as in ``fit_of``; values that the sample lacks are left out.
    """
    deviation = float(grey.std())
    known = list(values)
    if not deviation or not known:
        return {}
    flat = mask[0].ravel()
    inside = np.stack([flat == value for value in known]).astype(np.float32)
    sums = inside @ _coordinates(grey.shape)
    brightness = inside @ grey.ravel() / deviation
    found: dict[int, tuple[float, ...]] = {}
    for value, (count, *centre), bright in zip(known, sums.tolist(), brightness.tolist(), strict=True):
        if count:
            found[value] = (count / flat.size, bright / count, *(place / count for place in centre))
    return found


@lru_cache(maxsize=64)
def _coordinates(shape: tuple[int, ...]) -> np.ndarray:
    """For every point of a lattice 1 and its place along each axis, fastest first, -0.5 to 0.5 from the middle."""
    places = [(np.arange(size) + 0.5) / size - 0.5 for size in shape]
    grids = np.meshgrid(*places, indexing="ij")[::-1]
    return np.stack([np.ones(grids[0].size), *(grid.ravel() for grid in grids)], axis=1).astype(np.float32)


def _turned(mask: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The mask mirrored along each axis, and with each two axes of one size exchanged; volumes have axis 0 last."""
    names = ("rows", "columns") if mask.ndim == 2 else [f"axis {number}" for number in reversed(range(mask.ndim))]
    for axis, name in enumerate(names):
        yield f"mirrored along its {name}", np.ascontiguousarray(np.flip(mask, axis))
    for one, other in combinations(range(mask.ndim), 2):
        if mask.shape[one] == mask.shape[other]:
            yield f"with {names[other]} and {names[one]} exchanged", np.ascontiguousarray(np.swapaxes(mask, one, other))
