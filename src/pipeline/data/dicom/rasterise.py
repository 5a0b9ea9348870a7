"""Polygons to pixels: a pixel belongs to the polygons that enclose its centre an odd number of times together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

AT_ONCE = 1 << 20  # crossings of edges and pixel rows computed at once


def fill(polygons: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels (shape) inside of closed polygons, even-odd: a polygon within another one is a hole.

    ``polygons``: (n, 2) continuous indices along the axes of ``shape``; pixel centres have whole indices. A centre on
    an edge belongs to the polygon above and to the right of it, so that polygons that share an edge never overlap and
    leave no gap (the rule of Foley et al., Computer Graphics, 1990, section 3.6).
    """
    flips = np.zeros((shape[0] + 1, shape[1]), np.uint8)
    for polygon in polygons:
        _flip(flips, polygon)
    inside: np.ndarray = np.bitwise_xor.accumulate(flips, axis=0)[:-1].astype(bool)
    return inside


def _flip(flips: np.ndarray, polygon: np.ndarray) -> None:
    """Mark in every line along the first axis where it crosses an edge; all pixels from there on change sides."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    low = np.minimum(start[:, 1], end[:, 1])
    high = np.maximum(start[:, 1], end[:, 1])
    lines = flips.shape[1]
    first = np.clip(np.ceil(low), 0, lines).astype(np.int64)
    last = np.clip(np.ceil(high), 0, lines).astype(np.int64)  # exclusive
    counts = last - first
    crossed = np.flatnonzero(counts)
    for part in np.array_split(crossed, 1 + int(counts.sum()) // AT_ONCE):
        edge = np.repeat(part, counts[part])
        within = np.arange(edge.size) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        line = first[edge] + within
        share = (line - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
        crossing = start[edge, 0] + share * (end[edge, 0] - start[edge, 0])
        place = np.clip(np.ceil(crossing), 0, flips.shape[0] - 1).astype(np.int64)
        np.bitwise_xor.at(flips, (place, line), np.uint8(1))
