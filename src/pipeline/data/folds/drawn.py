"""Folds drawn at random: k-fold, repeated k-fold, leave-one-out and hold-out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.assignment import assign_evenly
from pipeline.data.case import Case, Dataset
from pipeline.data.folds.fold import Fold, Group
from pipeline.data.folds.groups import group_cases
from pipeline.data.folds.strata import cases_in_strata
from pipeline.errors import UserError

ATTEMPTS = 100  # drawings until one differs from those before it; small sets have few

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Units:
    """What is dealt to the folds: groups of cases that stay together, and how many of each stratum a group has."""

    dataset: Dataset
    groups: Sequence[Sequence[Case]]
    weights: np.ndarray  # (groups, strata)
    group: Group

    @classmethod
    def of(
        cls, dataset: Dataset, group: Group, together: Sequence[Sequence[str]], strata: Sequence[Mapping[str, str]]
    ) -> Units:
        """The units of a data set."""
        groups = group_cases(dataset.cases, group, together)
        return cls(dataset, groups, cases_in_strata(groups, strata), group)

    @property
    def named(self) -> int:
        """How many patients, or sites, there are; more than groups where some are tied to each other."""
        return len({case.site for case in self.dataset.cases} if self.group == "site" else self.dataset.patients)

    def require(self, count: int, asked: str) -> None:
        """Raise UserError where there are fewer groups than ``count``; ``asked`` is the key with its value."""
        if len(self.groups) >= count:
            return
        tied = {"patient": "without duplicates", "site": "that share no patient and no duplicate"}[self.group]
        merged = f" in {len(self.groups)} groups {tied}" if len(self.groups) != self.named else ""
        key = asked.partition("=")[0]
        remedy = f"set {key}={len(self.groups)}" if len(self.groups) > 1 and count > 2 else f"add {self.group}s"
        raise UserError(f"{asked} needs at least {count} {self.group}s; data has {self.named}{merged}", remedy)

    def folds(self, fold_of: np.ndarray, indices: Sequence[int], *, first: int = 0, repeat: int = 0) -> list[Fold]:
        """Folds that validate on the groups assigned to each of ``indices`` and train on the others."""
        by_case = {case.case_id: int(fold) for fold, group in zip(fold_of, self.groups, strict=True) for case in group}
        return [
            Fold(
                first + number,
                tuple(case.case_id for case in self.dataset.cases if by_case[case.case_id] != index),
                tuple(case.case_id for case in self.dataset.cases if by_case[case.case_id] == index),
                repeat,
            )
            for number, index in enumerate(indices)
        ]


def k_folds(units: Units, *, count: int | None, repeats: int, seed: int) -> tuple[Fold, ...]:
    """``count`` folds of even sizes, drawn ``repeats`` times; fold indices go on from drawing to drawing.

    ``count`` None, or as many as there are sites where whole sites are held out: one group (patient or site) in each
    fold, in the order of their names. Raises UserError.
    """
    if count is not None and count < 2:
        raise UserError(f"folds.count={count}: at least 2 folds are needed", "for a hold-out set: folds=holdout")
    units.require(count or 2, f"folds.count={'null' if count is None else count}")
    n = len(units.groups)
    if count is None or (units.group == "site" and count == n):
        if repeats > 1:
            raise UserError(
                f"folds.repeats={repeats}, but leaving one {units.group} out can be done in one way only",
                "set folds.repeats=1, or a smaller folds.count",
            )
        if units.group == "site" and n != units.named:
            log.warning("%d sites are held out in %d folds: some share patients or duplicates", units.named, n)
        return tuple(units.folds(np.arange(n), range(n)))
    drawings = _different(units, count, repeats, seed, None)
    return tuple(
        fold
        for repeat, drawing in enumerate(drawings)
        for fold in units.folds(drawing, range(count), first=repeat * count, repeat=repeat)
    )


def hold_out(units: Units, *, fraction: float, repeats: int, seed: int) -> tuple[Fold, ...]:
    """One fold that validates on about ``fraction`` of the cases, drawn ``repeats`` times. Raises UserError."""
    if not 0 < fraction < 1:
        raise UserError(f"folds.test_fraction={fraction}: must lie between 0 and 1", "such as folds.test_fraction=0.2")
    units.require(2, "folds.scheme=holdout")
    drawings = _different(units, 2, repeats, seed, [1 - fraction, fraction])
    return tuple(
        fold
        for repeat, drawing in enumerate(drawings)
        for fold in units.folds(drawing, [1], first=repeat, repeat=repeat)
    )


def _different(units: Units, count: int, repeats: int, seed: int, shares: Sequence[float] | None) -> list[np.ndarray]:
    """``repeats`` drawings, no two of them alike."""
    drawings: list[np.ndarray] = []
    known: set[bytes] = set()
    for repeat in range(repeats):
        for attempt in range(ATTEMPTS):
            drawing = assign_evenly(units.weights, count, np.random.default_rng([seed, repeat, attempt]), shares=shares)
            if (shape := _shape(drawing, count, ordered=shares is not None)) not in known:
                break
        else:
            raise UserError(
                f"folds.repeats={repeats}: these {len(units.groups)} groups of cases give {repeat} different drawings",
                f"set folds.repeats={repeat}",
            )
        known.add(shape)
        drawings.append(drawing)
    return drawings


def _shape(drawing: np.ndarray, count: int, *, ordered: bool) -> bytes:
    """Equal for two drawings that differ in the numbers of their folds alone (``ordered``: those count too)."""
    if not ordered:
        _, first = np.unique(drawing, return_index=True)
        number = np.empty(count, dtype=int)
        number[np.argsort(first)] = np.arange(count)
        drawing = number[drawing]
    return drawing.tobytes()
