"""Randomness without state: every draw is a function of the seed, its purpose and its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def draw_seed(seed: int, purpose: str, *place: int) -> int:
    """A 63-bit seed that depends on nothing but the arguments.

    ``place`` says which draw it is (epoch, position, rank ...), so interruption, caching and the number of worker
    processes cannot change it.
    """
    text = ":".join([str(seed), purpose, *map(str, place)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Torch's CPU draws inside come from ``seed`` alone; the generator is put back as it was afterwards."""
    import torch

    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """A NumPy generator for one draw, seeded by :func:`draw_seed`."""
    return np.random.Generator(np.random.PCG64(draw_seed(seed, purpose, *place)))
