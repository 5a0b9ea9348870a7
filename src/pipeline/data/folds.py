"""Cross-validation folds: by patient, stratified as far as patients allow, a function of the seed alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.data.assignment import assign_evenly, group_patients
from pipeline.data.case import Dataset
from pipeline.errors import UserError

Stratify = Literal["auto", "none", "class", "foreground", "site"]

TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class Fold:
    """Case ids to train on and to validate on, each in the order of the data set."""

    index: int
    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_folds(
    dataset: Dataset,
    *,
    count: int,
    seed: int,
    stratify: Stratify = "auto",
    foreground: Mapping[str, float] | None = None,
    quantiles: int = 4,
    predefined: bool = False,
    file: Path | None = None,
    together: Sequence[Sequence[str]] = (),
) -> tuple[Fold, ...]:
    """The folds of a data set; no patient stands in both parts of a fold.

    In order of precedence: those of ``file`` (see read_folds); ``predefined``: the table's split column as the one
    fold 0; the table's fold column; else ``count`` folds drawn with ``seed``, of sizes as equal as patients allow,
    stratified by ``stratify``: the class, the site, or the ``foreground`` (volume of each case, cut into
    ``quantiles``, cases without foreground apart). "auto" takes the class in classification and the foreground in
    segmentation where it is given. ``together``: groups of case ids, such as duplicates, kept in one fold.
    Raises UserError.
    """
    if file is not None:
        folds = read_folds(file, dataset)
    elif predefined:
        folds = (_given_split(dataset),)
    elif any(case.fold is not None for case in dataset.cases):
        folds = _given_folds(dataset)
    else:
        folds = _draw(dataset, count, seed, _strata(dataset, stratify, foreground, quantiles), together)
    for fold in folds:
        assert_disjoint(fold, dataset)
    return folds


def assert_disjoint(fold: Fold, dataset: Dataset) -> None:
    """Raise UserError where a patient stands in both parts of a fold, or a part is empty."""
    patients = {case.case_id: case.patient_id for case in dataset.cases}
    both = {patients[case_id] for case_id in fold.train} & {patients[case_id] for case_id in fold.validation}
    if both:
        raise UserError(
            f"fold {fold.index}: patient {min(both)} stands in training and in validation"
            + (f", as do {len(both) - 1} more" if len(both) > 1 else ""),
            "give all cases of a patient the same fold (or split)",
        )
    for part, cases in (("training", fold.train), ("validation", fold.validation)):
        if not cases:
            raise UserError(f"fold {fold.index}: no case for {part}", "check the folds that the data set gives")


def write_folds(path: Path, folds: Sequence[Fold], dataset: Dataset, seed: int) -> None:
    """Write folds.json: the seed, and cases and patients of each fold."""
    patients = {case.case_id: case.patient_id for case in dataset.cases}

    def part(cases: Sequence[str]) -> dict[str, list[str]]:
        return {"cases": list(cases), "patients": sorted({patients[case_id] for case_id in cases})}

    content = {
        "dataset": dataset.name,
        "seed": seed,
        "folds": [
            {"index": fold.index, "train": part(fold.train), "validation": part(fold.validation)} for fold in folds
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_folds(path: Path, dataset: Dataset) -> tuple[Fold, ...]:
    """Folds from a folds.json, or from nnU-Net's splits_final.json (a list of {train, val}). Raises UserError."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as folds ({error})", "folds.file names a folds.json") from None
    try:
        if isinstance(content, list):
            parts = [(number, _ids(fold["train"]), _ids(fold["val"])) for number, fold in enumerate(content)]
        else:
            parts = [
                (int(fold["index"]), _ids(fold["train"]["cases"]), _ids(fold["validation"]["cases"]))
                for fold in content["folds"]
            ]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: neither a folds.json nor a splits_final.json",
            'a splits file is a list of {"train": [case ids], "val": [case ids]}',
        ) from None
    known = {case.case_id for case in dataset.cases}
    named = {case_id for _, train, validation in parts for case_id in (*train, *validation)}
    unknown = sorted(map(str, named - known))
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of its cases are not in the data, such as {unknown[0]}",
            f"the data have cases such as {min(known)}",
        )
    if not parts:
        raise UserError(f"{path}: has no fold")
    return tuple(
        Fold(number, _ordered(dataset, train), _ordered(dataset, validation)) for number, train, validation in parts
    )


def _ids(found: list[Any]) -> list[str]:
    return [str(case_id) for case_id in found]


def _given_split(dataset: Dataset) -> Fold:
    splits = {case.case_id: (case.split or "").casefold() for case in dataset.cases}
    train = [case_id for case_id, split in splits.items() if split in TRAIN]
    validation = [case_id for case_id, split in splits.items() if split in VALIDATION]
    if not train or not validation:
        raise UserError(
            "folds.predefined=true needs cases of split train and of split val; "
            f"data has {', '.join(sorted(set(splits.values()) - {''})) or 'no split'}",
            "name the column in data.columns.split, or set folds.predefined=false",
        )
    return Fold(0, tuple(train), tuple(validation))


def _given_folds(dataset: Dataset) -> tuple[Fold, ...]:
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


def _strata(
    dataset: Dataset, stratify: Stratify, foreground: Mapping[str, float] | None, quantiles: int
) -> dict[str, str]:
    """The stratum of each case."""
    cases = dataset.cases
    if stratify == "class" and dataset.task != "classification":
        raise UserError("folds.stratify=class needs task=classification", "use folds.stratify=foreground or auto")
    if stratify == "foreground" and not foreground:
        raise UserError("folds.stratify=foreground needs masks with some foreground", "use folds.stratify=auto")
    if stratify == "class" or (stratify == "auto" and dataset.task == "classification"):
        return {case.case_id: str(case.target) for case in cases}
    if stratify == "site":
        if all(case.site is None for case in cases):
            raise UserError("folds.stratify=site, but no case has a site", "name the column in data.columns.site")
        return {case.case_id: str(case.site) for case in cases}
    if stratify == "none" or not foreground:
        return {case.case_id: "" for case in cases}
    shown = sorted((case.case_id for case in cases if foreground.get(case.case_id, 0) > 0), key=foreground.__getitem__)
    strata = {case.case_id: "empty" for case in cases}
    strata |= {case_id: f"quantile {rank * quantiles // len(shown)}" for rank, case_id in enumerate(shown)}
    return strata


def _draw(
    dataset: Dataset, count: int, seed: int, strata: Mapping[str, str], together: Sequence[Sequence[str]]
) -> tuple[Fold, ...]:
    if count < 2:
        raise UserError(f"folds.count={count}: at least 2 folds are needed", "a hold-out set: folds.predefined=true")
    groups = group_patients(dataset.cases, together)
    if len(groups) < count:
        patients = len(dataset.patients)
        merged = f" in {len(groups)} groups without duplicates" if len(groups) != patients else ""
        remedy = f"set folds.count={len(groups)}" if len(groups) > 1 else "add patients"
        raise UserError(f"folds.count={count} needs at least {count} patients; data has {patients}{merged}", remedy)

    names = sorted(set(strata.values()))
    weights = np.zeros((len(groups), len(names)))  # cases of each group in each stratum
    for number, group in enumerate(groups):
        for case in group:
            weights[number, names.index(strata[case.case_id])] += 1
    fold_of = assign_evenly(weights, count, np.random.default_rng([seed, 0]))
    by_case = {case.case_id: int(fold_of[number]) for number, group in enumerate(groups) for case in group}
    return tuple(
        Fold(
            index,
            tuple(case.case_id for case in dataset.cases if by_case[case.case_id] != index),
            tuple(case.case_id for case in dataset.cases if by_case[case.case_id] == index),
        )
        for index in range(count)
    )


def _ordered(dataset: Dataset, wanted: Sequence[str]) -> tuple[str, ...]:
    chosen = set(wanted)
    return tuple(case.case_id for case in dataset.cases if case.case_id in chosen)
