"""Folds that the data bring with them: a column of folds, or of the split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from pipeline.data.case import Dataset
from pipeline.data.folds.fold import Fold, name_of
from pipeline.errors import UserError

TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation")

log = logging.getLogger(__name__)


def given_split(dataset: Dataset, asked: str) -> Fold:
    """The one fold of the column of splits; cases of other splits, such as test, stay out. Raises UserError.

    ``asked``: the key with its value that asks for it.
    """
    splits = {case.case_id: (case.split or "").casefold() for case in dataset.cases}
    train = [case_id for case_id, split in splits.items() if split in TRAIN]
    validation = [case_id for case_id, split in splits.items() if split in VALIDATION]
    if not train or not validation:
        raise UserError(
            f"{asked} needs cases of split train and of split val; "
            f"data has {', '.join(sorted(set(splits.values()) - {''})) or 'no split'}",
            "name the column in data.columns.split, or set folds=kfold",
        )
    return Fold(0, tuple(train), tuple(validation))


def given_folds(dataset: Dataset) -> tuple[Fold, ...]:
    """The folds of the column of folds: each is validated by the cases of its number. Raises UserError."""
    without = [case.case_id for case in dataset.cases if case.fold is None]
    if without:
        raise UserError(
            f"{len(without)} cases have no fold, such as {without[0]}, while others do",
            "fill in the column data.columns.fold, or set it to null",
        )
    indices = sorted({case.fold for case in dataset.cases if case.fold is not None})
    if indices != list(range(len(indices))) or len(indices) < 2:
        raise UserError(
            f"data.columns.fold gives folds {', '.join(map(str, indices))}",
            "number at least two folds from 0 on without a gap",
        )
    return tuple(
        Fold(
            index,
            tuple(case.case_id for case in dataset.cases if case.fold != index),
            tuple(case.case_id for case in dataset.cases if case.fold == index),
        )
        for index in indices
    )


def without_leaks(fold: Fold, together: Sequence[Sequence[str]]) -> Fold:
    """The fold without the training cases of which a duplicate is validated on; what is left out is logged.

    A given split is often one that results are compared on: the validation part stays as it is.
    """
    leaking: set[str] = set()
    for tied in together:
        if not set(tied).isdisjoint(fold.validation):
            leaking.update(set(tied) - set(fold.validation))
    left = tuple(case_id for case_id in fold.train if case_id not in leaking)
    out = [case_id for case_id in fold.train if case_id in leaking]
    if not out:
        return fold
    log.warning(
        "%s as given has duplicates of validation cases in training: %d left out of training, such as %s",
        name_of(fold),
        len(out),
        out[0],
    )
    inner = tuple(
        replace(part, train=_less(part.train, leaking), validation=_less(part.validation, leaking))
        for part in fold.inner
    )
    return replace(fold, train=left, inner=inner)


def _less(cases: Sequence[str], leaking: set[str]) -> tuple[str, ...]:
    return tuple(case_id for case_id in cases if case_id not in leaking)
