"""What folds share evenly: classes, foreground volumes, sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from pipeline.data.case import Case, Dataset
from pipeline.errors import UserError

Stratum = Literal["class", "foreground", "site"]
Stratify = Literal["auto", "none", "class", "foreground", "site"] | Sequence[Stratum]


def strata_of(
    dataset: Dataset, stratify: Stratify, foreground: Mapping[str, float] | None, quantiles: int
) -> list[dict[str, str]]:
    """The stratum of each case, once for each thing to stratify by; empty for none.

    The class, the site, or the ``foreground`` (volume of each case, cut into ``quantiles``, cases without foreground
    apart). "auto" takes the class in classification and the foreground in segmentation where it is given; of several,
    each is shared as evenly as the others allow. Raises UserError for what the data do not have.
    """
    if stratify == "auto":
        by: Sequence[str] = ["class"] if dataset.task == "classification" else ["foreground"] if foreground else []
    elif stratify == "none":
        by = []
    else:
        by = [stratify] if isinstance(stratify, str) else list(dict.fromkeys(stratify))
    return [_stratum(dataset, name, foreground, quantiles) for name in by]


def _stratum(dataset: Dataset, by: str, foreground: Mapping[str, float] | None, quantiles: int) -> dict[str, str]:
    cases = dataset.cases
    if by == "class":
        if dataset.task != "classification":
            raise UserError("folds.stratify=class needs task=classification", "use folds.stratify=foreground or auto")
        return {case.case_id: str(case.target) for case in cases}
    if by == "site":
        if all(case.site is None for case in cases):
            raise UserError("folds.stratify=site, but no case has a site", "name the column in data.columns.site")
        return {case.case_id: str(case.site) for case in cases}
    if not foreground:
        raise UserError("folds.stratify=foreground needs masks with some foreground", "use folds.stratify=auto")
    volumes = sorted((foreground.get(case.case_id, 0), case.case_id) for case in cases)
    shown = [case_id for volume, case_id in volumes if volume > 0]
    strata = {case.case_id: "empty" for case in cases}
    return strata | {case_id: f"quantile {rank * quantiles // len(shown)}" for rank, case_id in enumerate(shown)}


def cases_in_strata(groups: Sequence[Sequence[Case]], strata: Sequence[Mapping[str, str]]) -> np.ndarray:
    """Cases of each group in each stratum, (groups, strata); one stratum of all cases where there are none."""
    columns: dict[tuple[int, str], int] = {}
    for number, variable in enumerate(strata):
        for name in sorted(set(variable.values())):
            columns[number, name] = len(columns)
    weights = np.zeros((len(groups), max(1, len(columns))))
    for row, group in enumerate(groups):
        if not columns:
            weights[row, 0] = len(group)
        for case in group:
            for number, variable in enumerate(strata):
                weights[row, columns[number, variable[case.case_id]]] += 1
    return weights
