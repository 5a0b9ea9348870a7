"""What a 2D image looks like, in a few bytes: a perceptual hash, and a thumbnail."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

GRID = 32  # pixels a side of the area-averaged picture that is hashed
FREQUENCIES = 16  # of the cosine transform a side; the constant one is no bit
BITS = FREQUENCIES * FREQUENCIES
THUMB = 8  # pixels a side of the thumbnail


@lru_cache(maxsize=256)
def _weights(size: int, cells: int = GRID) -> np.ndarray:
    """(cells, size) float32: how much each pixel adds to the mean of each cell."""
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    covered = np.clip(covered, 0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True), np.float32)


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """The first rows of the orthonormal DCT-II, (FREQUENCIES, GRID)."""
    rows = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (2 * np.arange(GRID) + 1) / (2 * GRID))
    rows[0] /= np.sqrt(2)
    return np.asarray(rows * np.sqrt(2 / GRID), np.float32)


def averaged(plane: np.ndarray) -> np.ndarray:
    """Means over GRID x GRID equal parts of a plane (H, W), float32; parts of large planes end at whole pixels."""
    for axis in (0, 1):
        size = plane.shape[axis]
        if size >= 4 * GRID:
            edges = np.arange(GRID) * size // GRID
            widths = np.diff(np.append(edges, size)).astype(np.float32)
            sums = np.add.reduceat(plane, edges, axis=axis, dtype=np.float32)
            plane = sums / (widths[:, None] if axis == 0 else widths)
        else:
            plane = np.asarray(plane, np.float32)
            plane = _weights(size) @ plane if axis == 0 else plane @ _weights(size).T
    return plane


def describe(plane: np.ndarray) -> tuple[str, str]:
    """Perceptual hash and thumbnail of a plane (H, W) as hexadecimal text.

    The hash (Zauner 2010, "pHash", here of 16 x 16 frequencies) has a bit for each low frequency: whether its
    coefficient lies above their median. Compression, scaling and brightness alter few bits. Empty texts for a plane
    that is constant or holds values that are not finite.
    """
    cells = averaged(plane)
    low, high = float(cells.min()), float(cells.max())
    if not np.isfinite(high - low) or high <= low:
        return "", ""
    cells = (cells - low) / (high - low)
    frequencies = (_cosines() @ cells @ _cosines().T).ravel()
    middle = (BITS - 1) // 2
    bits = frequencies > np.partition(frequencies[1:], middle)[middle]
    bits[0] = False
    side = GRID // THUMB
    small = cells.reshape(THUMB, side, THUMB, side).sum(axis=(1, 3)) / side**2
    return np.packbits(bits).tobytes().hex(), np.rint(small * 255).astype(np.uint8).tobytes().hex()


def thumbnail(text: str) -> np.ndarray:
    """The thumbnail that ``describe`` wrote, (THUMB * THUMB,) float32."""
    return np.frombuffer(bytes.fromhex(text), np.uint8).astype(np.float32)
