"""Which case stands at which place of an epoch: a function of (seed, epoch, place), never of history."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pipeline.randomness import generator

BLOCK = 4096  # places drawn at once by WeightedOrder; part of what a seed means


class Draw(NamedTuple):
    """One training example: the case of this index, drawn at ``place`` of ``epoch``."""

    epoch: int
    place: int
    case: int


class Order(Protocol):
    """Which case stands at each place, counted from the start of training."""

    def cases(self, first: int, last: int) -> list[int]:
        """The case indices at the global places ``first`` to ``last`` (exclusive)."""
        ...


@dataclass(frozen=True)
class CaseOrder:
    """Cases in random order, each pass over them complete before the next begins.

    ``groups`` are lists of case indices that are drawn in turn: one group of all cases, or one group per class, which
    draws every class equally often by repeating the cases of rare ones (minority oversampling).
    """

    groups: tuple[tuple[int, ...], ...]
    seed: int

    def cases(self, first: int, last: int) -> list[int]:
        """The case indices at the global places ``first`` to ``last`` (exclusive), counted from the start."""
        known: dict[tuple[int, int], NDArray[np.int64]] = {}
        drawn = []
        for place in range(first, last):
            group = place % len(self.groups)
            members = self.groups[group]
            turn, rank = divmod(place // len(self.groups), len(members))
            if (group, turn) not in known:
                known[group, turn] = generator(self.seed, "order", group, turn).permutation(len(members))
            drawn.append(members[int(known[group, turn][rank])])
        return drawn


@dataclass(frozen=True)
class WeightedOrder:
    """Cases drawn with replacement, each with a probability in proportion to its weight.

    Raises ValueError for weights that are negative or all zero.
    """

    weights: tuple[float, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError("the weights of the cases must not be negative, nor all zero")

    @cached_property
    def _ends(self) -> NDArray[np.float64]:
        ends = np.cumsum(np.asarray(self.weights, dtype=np.float64))
        ends /= ends[-1]
        return ends

    def cases(self, first: int, last: int) -> list[int]:
        """The case indices at the global places ``first`` to ``last`` (exclusive), counted from the start."""
        drawn: list[int] = []
        for block in range(first // BLOCK, -(-last // BLOCK)):
            chances = generator(self.seed, "weighted order", block).random(BLOCK)
            wanted = chances[max(first - block * BLOCK, 0) : last - block * BLOCK]
            drawn += np.searchsorted(self._ends, wanted, side="right").tolist()
        return drawn


class EpochBatches(Sampler[list[Draw]]):
    """The batches of this process in one epoch; Lightning calls ``set_epoch`` before it iterates.

    The global batch (``batch_size`` times ``processes``) is the same whatever the number of processes, cut in
    consecutive parts. ``len`` counts the batches of a whole epoch, also in one that is resumed.
    """

    def __init__(self, order: Order, *, batches: int, batch_size: int, process: int = 0, processes: int = 1) -> None:
        self.order = order
        self.batches = batches
        self.batch_size = batch_size
        self.process = process
        self.processes = processes
        self.epoch = 0
        self._resumed = (0, 0)  # epoch, batch

    def resume_at(self, epoch: int, batch: int) -> None:
        """Begin with this epoch, and it with this batch, both counted from 0."""
        self.epoch = epoch
        self._resumed = (epoch, batch)

    @property
    def sampler(self) -> EpochBatches:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Draw]]:
        together = self.batch_size * self.processes
        begin = self.epoch * self.batches * together
        epoch, resumed = self._resumed
        for batch in range(resumed if self.epoch == epoch else 0, self.batches):
            first = batch * together + self.process * self.batch_size
            places = range(first, first + self.batch_size)
            cases = self.order.cases(begin + first, begin + first + self.batch_size)
            yield [Draw(self.epoch, place, index) for place, index in zip(places, cases, strict=True)]


def own_share(count: int, process: int, processes: int) -> list[int]:
    """Every so-manieth of the indices below ``count``, as many for every process: where they do not fill the last round
    some are taken twice, because processes that train together must take the same number of steps."""
    rounds = -(-count // processes)
    return [(process + processes * number) % count for number in range(rounds)]


def groups_by_class(classes: Sequence[int | Collection[int]]) -> tuple[tuple[int, ...], ...]:
    """Indices of the cases of each class that occurs; ``classes``: the class, or the classes, of each case."""
    members: dict[int, list[int]] = {}
    for index, found in enumerate(classes):
        for of_class in {found} if isinstance(found, int) else set(found):
            members.setdefault(of_class, []).append(index)
    return tuple(tuple(members[of_class]) for of_class in sorted(members))
