"""The folds of a data set: drawn, given by the data, or read from a file; their parts proven apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.data.case import Dataset
from pipeline.data.folds.drawn import Units, hold_out, k_folds
from pipeline.data.folds.files import read_folds
from pipeline.data.folds.fold import Fold, Group, assert_disjoint
from pipeline.data.folds.given import given_folds, given_split, without_leaks
from pipeline.data.folds.nested import with_inner
from pipeline.data.folds.strata import Stratify, strata_of
from pipeline.errors import UserError

Scheme = Literal["kfold", "repeated", "holdout", "predefined"]


def make_folds(
    dataset: Dataset,
    *,
    count: int | None,
    seed: int,
    scheme: Scheme = "kfold",
    repeats: int = 1,
    test_fraction: float = 0.2,
    group: Group = "patient",
    stratify: Stratify = "auto",
    foreground: Mapping[str, float] | None = None,
    quantiles: int = 4,
    inner: int | None = None,
    predefined: bool = False,
    file: Path | None = None,
    together: Sequence[Sequence[str]] = (),
) -> tuple[Fold, ...]:
    """The folds of a data set; no patient (or site, for ``group`` "site") stands in both parts of a fold.

    In order of precedence: those of ``file`` (see read_folds); ``predefined``: the table's split column as the one
    fold 0; the table's fold column; else drawn with ``seed``, of sizes as equal as groups allow, stratified by
    ``stratify`` (see strata_of). ``scheme`` "kfold" and "repeated": ``count`` folds, ``repeats`` times over; "holdout":
    one fold that validates on ``test_fraction`` of the cases; "predefined": what the table gives, fold column or
    else split. ``inner``: how many folds each training part is divided into in its turn. ``together``: groups of case
    ids, such as duplicates, that count as one patient; where given folds part them, they are left out of training.
    Raises UserError.
    """
    given = _given(dataset, scheme, predefined, file)
    if given is not None:
        if repeats > 1:
            raise UserError(
                f"folds.repeats={repeats}, but the folds are given, not drawn", "set folds.repeats=1, or draw them"
            )
        folds = tuple(without_leaks(fold, together) for fold in given)
    else:
        if scheme == "repeated" and repeats < 2:
            raise UserError("folds.scheme=repeated with folds.repeats=1", "set folds.repeats=3, or folds.scheme=kfold")
        strata = strata_of(dataset, stratify, foreground, quantiles)
        units = Units.of(dataset, group, together, strata)
        if scheme == "holdout":
            folds = hold_out(units, fraction=test_fraction, repeats=repeats, seed=seed)
        else:
            folds = k_folds(units, count=count, repeats=repeats, seed=seed)
    for fold in folds:
        assert_disjoint(fold, dataset, group=group, together=together)
    if inner is not None:
        folds = tuple(
            with_inner(
                fold,
                dataset,
                count=inner,
                seed=seed,
                group=group,
                stratify=stratify,
                foreground=foreground,
                quantiles=quantiles,
                together=together,
            )
            for fold in folds
        )
        for fold in folds:
            assert_disjoint(fold, dataset, group=group, together=together)
    return folds


def folds_of(
    dataset: Dataset,
    asked: Mapping[str, Any],
    *,
    foreground: Mapping[str, float] | None = None,
    together: Sequence[Sequence[str]] = (),
) -> tuple[Fold, ...]:
    """The folds that the keys of ``folds:`` ask for; ``foreground`` and ``together`` as in make_folds. UserError."""
    chosen = {key: value for key, value in asked.items() if key not in ("run", "file")}
    file = None if asked["file"] is None else Path(asked["file"]).expanduser()
    return make_folds(dataset, file=file, foreground=foreground, together=together, **chosen)


def _given(dataset: Dataset, scheme: Scheme, predefined: bool, file: Path | None) -> tuple[Fold, ...] | None:
    """Folds that need not be drawn."""
    if file is not None:
        return read_folds(file, dataset)
    numbered = any(case.fold is not None for case in dataset.cases)
    if predefined:
        return (given_split(dataset, "folds.predefined=true"),)
    if scheme == "predefined" and not numbered:
        return (given_split(dataset, "folds.scheme=predefined without a column of folds"),)
    if not numbered:
        return None
    if scheme in ("kfold", "predefined"):
        return given_folds(dataset)
    raise UserError(
        f"folds.scheme={scheme}, but the data give each case its fold (data.columns.fold)",
        "take those: folds=predefined",
        "or draw others: data.columns.fold=null",
    )
