"""A fold, and the proof that its parts share nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.data.case import Dataset
from pipeline.errors import UserError

Group = Literal["patient", "site"]


@dataclass(frozen=True, slots=True)
class Fold:
    """Case ids to train on and to validate on, each in the order of the data set.

    ``repeat``: which drawing of the folds this one belongs to. ``inner``: folds of the training part, to choose
    hyper-parameters with; their cases never include those validated here.
    """

    index: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    repeat: int = 0
    inner: tuple[Fold, ...] = ()


def assert_disjoint(
    fold: Fold, dataset: Dataset, *, group: Group = "patient", together: Sequence[Sequence[str]] = ()
) -> None:
    """Raise UserError where a patient (or site, for ``group`` "site") stands in both parts of a fold, or a part is
    empty.

    ``together``: groups of case ids that count as one patient, such as duplicates. The inner folds are held to the
    same, and to the cases of the training part.
    """
    patients = {case.case_id: f"patient {case.patient_id}" for case in dataset.cases}
    _require_apart(fold, patients, "give all cases of a patient the same fold (or split)")
    if group == "site":
        sites = {case.case_id: f"site {case.site}" for case in dataset.cases}
        _require_apart(fold, sites, "give all cases of a site the same fold (or split), or set folds.group=patient")
    tied = {case_id: f"the image of case {ids[0]}" for ids in together for case_id in ids}
    _require_apart(fold, tied, "take its duplicates out, or give them the same fold")
    for part, cases in (("training", fold.train), ("validation", fold.validation)):
        if not cases:
            raise UserError(f"{name_of(fold)}: no case for {part}", "check the folds that the data set gives")
    for inner in fold.inner:
        outside = {*inner.train, *inner.validation} - set(fold.train)
        if outside:
            raise UserError(f"{name_of(fold)}: its inner folds have case {min(outside)}, which it does not train on")
        assert_disjoint(inner, dataset, group=group, together=together)


def _require_apart(fold: Fold, owner: Mapping[str, str], remedy: str) -> None:
    both = {owner.get(case_id) for case_id in fold.train} & {owner.get(case_id) for case_id in fold.validation}
    found = sorted(name for name in both if name is not None)
    if found:
        more = f", as do {len(found) - 1} more" if len(found) > 1 else ""
        raise UserError(f"{name_of(fold)}: {found[0]} stands in training and in validation{more}", remedy)


def name_of(fold: Fold) -> str:
    """What a message calls a fold."""
    return f"fold {fold.index}"


def in_order(dataset: Dataset, wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted case ids in the order of the data set."""
    chosen = set(wanted)
    return tuple(case.case_id for case in dataset.cases if case.case_id in chosen)
