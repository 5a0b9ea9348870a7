"""Pairs of perceptual hashes that differ in few bits, found without comparing all with all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BANDS = 16  # parts of a hash: two that differ in fewer bits agree in one part at least
NEIGHBOURS = 32  # later entries of a bucket that each entry is compared with, in the order of their hashes
MOST_BITS = BANDS - 1


def near_pairs(hashes: Sequence[str], limit: int) -> list[tuple[int, int, int]]:
    """(first, second, bits that differ) of each pair of hashes (hexadecimal, of 256 bits) within ``limit`` bits, at
    most MOST_BITS; of every image but the first of its kind only the nearest earlier one is told.

    Hashes are put into buckets by each of BANDS parts (locality-sensitive hashing, Indyk and Motwani 1998), so the
    time grows with their number, not its square; in a bucket of very many only neighbours in sorted order are compared.
    """
    if len(hashes) < 2:
        return []
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    # bit b of each byte pair goes to band b: every band mixes low and high frequencies, which are less alike
    bits = np.unpackbits(packed, axis=1).reshape(len(packed), -1, BANDS)
    bands = np.packbits(bits.transpose(0, 2, 1), axis=2)
    words = np.ascontiguousarray(packed).view(np.uint64)
    nearest: dict[int, tuple[int, int]] = {}
    for band in range(BANDS):
        keys = np.ascontiguousarray(bands[:, band]).view(f"u{bands.shape[2]}").ravel()
        order = np.lexsort((*words.T, keys))
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            left, right = order[:-step], order[step:]
            same = keys[left] == keys[right]
            if not same.any():
                break
            left, right = left[same], right[same]
            apart = np.bitwise_count(words[left] ^ words[right]).sum(axis=1)
            close = apart <= min(limit, MOST_BITS)
            for one, other, count in zip(
                left[close].tolist(), right[close].tolist(), apart[close].tolist(), strict=True
            ):
                first, second = min(one, other), max(one, other)
                nearest[second] = min(nearest.get(second, (count, first)), (count, first))
    return [(first, second, count) for second, (count, first) in sorted(nearest.items())]
