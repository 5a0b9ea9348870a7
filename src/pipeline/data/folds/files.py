"""folds.json, and the split files of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.case import Case, Dataset
from pipeline.data.folds.fold import Fold, in_order
from pipeline.errors import UserError
from pipeline.json_file import read_json


def write_folds(path: Path, folds: Sequence[Fold], dataset: Dataset, seed: int) -> None:
    """Write folds.json: the seed; cases, patients and sites of each fold; validation cases of its inner folds.

    What an inner fold trains on is the rest of the cases that its fold trains on. Lists stand on one line each.
    """
    known = {case.case_id: case for case in dataset.cases}
    head = f'{{\n "dataset": {json.dumps(dataset.name)},\n "seed": {seed},\n "folds": [\n'
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(head)
        for number, fold in enumerate(folds):
            file.write("" if number == 0 else ",\n")
            file.write(",\n".join(_lines(fold, known)) + "}")
        file.write("\n ]\n}\n")
    partial.replace(path)


def _lines(fold: Fold, known: Mapping[str, Case]) -> Iterator[str]:
    yield f'  {{"index": {fold.index}, "repeat": {fold.repeat}'
    for name, part in (("train", fold.train), ("validation", fold.validation)):
        patients = sorted({known[case_id].patient_id for case_id in part})
        lists = {"cases": list(part), "patients": patients}
        sites = sorted({site for case_id in part if (site := known[case_id].site) is not None})
        lists |= {"sites": sites} if sites else {}
        inside = ",\n    ".join(f"{json.dumps(key)}: {json.dumps(values)}" for key, values in lists.items())
        yield f'   "{name}": {{\n    {inside}}}'
    if fold.inner:
        inner = (
            f'    {{"index": {part.index}, "validation": {json.dumps({"cases": list(part.validation)})}}}'
            for part in fold.inner
        )
        yield '   "inner": [\n' + ",\n".join(inner) + "]"


def read_folds(path: Path, dataset: Dataset) -> tuple[Fold, ...]:
    """Folds from a folds.json, or from nnU-Net's splits_final.json (a list of {train, val}). Raises UserError."""
    try:
        content: Any = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as folds ({error})", "folds.file names a folds.json") from None
    try:
        if isinstance(content, list):
            folds = [Fold(number, _ids(fold["train"]), _ids(fold["val"])) for number, fold in enumerate(content)]
        else:
            folds = [_fold(fold) for fold in content["folds"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{path}: neither a folds.json nor a splits_final.json",
            'a splits file is a list of {"train": [case ids], "val": [case ids]}',
        ) from None
    _require_cases(path, folds, dataset)
    return tuple(_ordered(fold, dataset) for fold in folds)


def _fold(content: Mapping[str, Any]) -> Fold:
    train = _ids(content["train"]["cases"])
    inner = []
    for part in content.get("inner", []):
        validation = _ids(part["validation"]["cases"])
        held = set(validation)
        rest = tuple(case_id for case_id in train if case_id not in held)
        inner.append(Fold(int(part["index"]), rest, validation))
    validation = _ids(content["validation"]["cases"])
    return Fold(int(content["index"]), train, validation, int(content.get("repeat", 0)), tuple(inner))


def _ids(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise TypeError("case ids stand in a list")
    return tuple(str(case_id) for case_id in found)


def _require_cases(path: Path, folds: Sequence[Fold], dataset: Dataset) -> None:
    known = {case.case_id for case in dataset.cases}
    parts = [part for fold in folds for part in (fold, *fold.inner)]
    named = {case_id for part in parts for case_id in (*part.train, *part.validation)}
    unknown = sorted(named - known)
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of its cases are not in the data, such as {unknown[0]}",
            f"the data have cases such as {min(known)}",
        )
    if not folds:
        raise UserError(f"{path}: has no fold")
    if [fold.index for fold in folds] != list(range(len(folds))):
        raise UserError(
            f"{path}: numbers its folds {', '.join(str(fold.index) for fold in folds)}",
            "number them from 0 on without a gap, and choose with folds.run",
        )


def _ordered(fold: Fold, dataset: Dataset) -> Fold:
    inner = tuple(_ordered(part, dataset) for part in fold.inner)
    train, validation = in_order(dataset, fold.train), in_order(dataset, fold.validation)
    return Fold(fold.index, train, validation, fold.repeat, inner)
