"""Folds inside the training part of a fold, for choices that must not see its validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.data.assignment import assign_evenly
from pipeline.data.case import Dataset
from pipeline.data.folds.drawn import Units
from pipeline.data.folds.fold import Fold, Group, name_of
from pipeline.data.folds.strata import Stratify, strata_of
from pipeline.errors import UserError
from pipeline.randomness import generator


def with_inner(
    fold: Fold,
    dataset: Dataset,
    *,
    count: int,
    seed: int,
    group: Group,
    stratify: Stratify,
    foreground: Mapping[str, float] | None,
    quantiles: int,
    together: Sequence[Sequence[str]],
) -> Fold:
    """The fold with ``count`` inner folds of its training cases, grouped and stratified like the outer ones.

    Strata are those of the training cases alone. Source: Varma and Simon, BMC Bioinformatics 2006 (nested
    cross-validation). Raises UserError where the training part has too few patients or sites, or where the fold was
    read with another number of inner folds.
    """
    if fold.inner:
        if len(fold.inner) != count:
            raise UserError(
                f"folds.inner={count}, but {name_of(fold)} as given has {len(fold.inner)} inner folds",
                "set folds.inner=null to take them",
            )
        return fold
    chosen = set(fold.train)
    part = replace(dataset, cases=tuple(case for case in dataset.cases if case.case_id in chosen))
    units = Units.of(part, group, together, strata_of(part, stratify, foreground, quantiles))
    try:
        units.require(count, f"folds.inner={count}")
    except UserError as error:
        raise UserError(f"{name_of(fold)}, training part: {error.cause}", *error.remedies) from None
    fold_of = assign_evenly(units.weights, count, generator(seed, "inner folds", fold.index))
    return replace(fold, inner=tuple(units.folds(fold_of, range(count))))
