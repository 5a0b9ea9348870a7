"""Whether the cases of several runs may be compared one by one: same task, data and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError, UserErrors
from pipeline.training.recorded_runs import RecordedCase, RecordedRun

SHOWN = 10  # cases in a message
DIGITS = 12  # of a sha256 in a message
INTERSECTION = "intersection=true compares the runs on the cases that they share"


def comparable_runs(
    runs: Sequence[RecordedRun], *, intersection: bool, metrics: Sequence[str]
) -> tuple[list[RecordedRun], list[str]]:
    """The runs with the rows that are compared, and what was left out, in words.

    The runs have the same task, classes, data (by sha256), patients and folds. With ``intersection`` cases that some
    lack, have other files of, or did not predict are left out. Raises UserError, naming cases, folds and sha256.
    """
    first, *others = runs
    errors = [error for other in others for error in _kind_errors(first, other, metrics)]
    if errors:
        raise UserErrors(errors)
    differing = [_differences(first, other) for other in others]
    errors = [error for other, found in zip(others, differing, strict=True) for error in found.errors(first, other)]
    notes, left = [], {case for found in differing for case in (*found.absent, *found.content)}
    if left and not intersection:
        errors += [error for other, found in zip(others, differing, strict=True) for error in found.data(first, other)]
    if errors:
        raise UserErrors(errors)
    if left:
        notes.append(f"Left out, not the same files in all runs: {_listed(sorted(left))}")
    keys = first.keys
    for other in others:
        keys = keys.intersection(other.keys)
    keys = keys[~keys.get_level_values("case_id").isin(left)]
    kept = {(fold, case) for fold, case, *_ in keys}
    unpredicted = {
        run.name: sorted({(fold, case) for fold, case, *_ in run.keys if case not in left} - kept) for run in runs
    }
    if any(unpredicted.values()) and not intersection:
        raise UserErrors(
            [
                UserError(
                    f"{name}: {len(found)} case(s) that another run did not predict: "
                    + _listed([f"{case} (fold {fold})" for fold, case in found]),
                    INTERSECTION,
                )
                for name, found in unpredicted.items()
                if found
            ]
        )
    if not kept:
        raise UserError("the runs have no case in common", "compare runs of the same data and folds")
    notes += [
        f"Left out, predicted by {name} and not by all: {_listed([f'{case} (fold {fold})' for fold, case in found])}"
        for name, found in unpredicted.items()
        if found
    ]
    chosen = [run.restricted(keys) for run in runs]
    for other in chosen[1:]:
        _require_targets(chosen[0], other)
    return chosen, notes


def _kind_errors(first: RecordedRun, other: RecordedRun, metrics: Sequence[str]) -> list[UserError]:
    """What has nothing to do with cases: task, classes, unit, tolerance."""
    values: dict[str, tuple[Any, Any, str]] = {
        "task": (first.card.task, other.card.task, "compare runs of one task"),
        "classes": (list(first.card.class_names), list(other.card.class_names), "compare runs of the same labels"),
    }
    if first.card.task == other.card.task == "segmentation":
        parts = [{"values": run.card.label_values, "regions": run.card.regions} for run in (first, other)]
        values["labels"] = (parts[0], parts[1], "compare runs of the same labels")
        values["unit of length"] = (first.unit, other.unit, "compare runs of the same data")
        if "surface_dice" in metrics:
            hint = "leave surface_dice out: metrics=[dice,hd95_mm]"
            values["evaluation.tolerance_mm of the surface Dice"] = (first.tolerance_mm, other.tolerance_mm, hint)
    return [
        UserError(f"{other.name} and {first.name} differ in {name}: {theirs} and {mine}", hint)
        for name, (mine, theirs, hint) in values.items()
        if mine != theirs
    ]


@dataclass(frozen=True)
class _Differing:
    """Cases in which two runs differ, each with the reason in words. ``absent``, ``content``: in their data."""

    absent: dict[str, str]
    content: dict[str, str]
    patients: dict[str, str]
    folds: dict[str, str]
    training: dict[str, str]

    def errors(self, first: RecordedRun, other: RecordedRun) -> list[UserError]:
        """What no intersection mends."""
        hint = "compare runs of the same folds: same data, folds.seed and folds.count, or the same folds.file"
        return [
            *_error(first, other, "the patient of", self.patients, "compare runs of the same data"),
            *_error(first, other, "the fold of", self.folds, hint),
            *_error(first, other, "the training cases of", self.training, hint, what="fold(s)"),
        ]

    def data(self, first: RecordedRun, other: RecordedRun) -> list[UserError]:
        """What an intersection leaves out."""
        return [
            *_error(first, other, "the content (sha256) of", self.content, INTERSECTION),
            *_error(first, other, "the presence of", self.absent, INTERSECTION),
        ]


def _error(
    first: RecordedRun, other: RecordedRun, where: str, found: Mapping[str, str], hint: str, what: str = "case(s)"
) -> list[UserError]:
    if not found:
        return []
    lines = [f"{name}: {said}" for name, said in list(found.items())[:SHOWN]]
    more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [UserError(f"{other.name} and {first.name} differ in {where} {len(found)} {what}", *lines, *more, hint)]


def _differences(first: RecordedRun, other: RecordedRun) -> _Differing:
    found = _Differing({}, {}, {}, {}, {})
    for case in sorted({*first.cases, *other.cases}):
        mine, theirs = first.cases.get(case), other.cases.get(case)
        if mine is None or theirs is None:
            found.absent[case] = f"only in {(other if mine is None else first).name}"
            continue
        if mine.content != theirs.content:
            found.content[case] = _other_content(mine, theirs)
        if mine.patient != theirs.patient:
            found.patients[case] = f"{theirs.patient} and {mine.patient}"
        if mine.folds != theirs.folds:
            found.folds[case] = f"fold {theirs.folds or 'none'} and fold {mine.folds or 'none'}"
    shared = first.cases.keys() & other.cases.keys()
    for fold in sorted(first.trained_on.keys() & other.trained_on.keys()):
        differ = sorted((first.trained_on[fold] ^ other.trained_on[fold]) & shared)
        if differ and not found.folds:
            found.training[f"fold {fold}"] = f"{len(differ)}, such as {differ[0]}"
    return found


def _other_content(mine: RecordedCase, theirs: RecordedCase) -> str:
    for path in theirs.files.keys() & mine.files.keys():
        if mine.files[path] != theirs.files[path]:
            return f"{path} has sha256 {theirs.files[path][:DIGITS]} and {mine.files[path][:DIGITS]}"
    return f"files {', '.join(theirs.files)} and {', '.join(mine.files)}"


def _require_targets(first: RecordedRun, other: RecordedRun) -> None:
    """Targets of a classification stand in a table, which the manifest does not name."""
    if first.card.task != "classification":
        return
    mine, theirs = (dict(zip(run.keys, run.table["target"], strict=True)) for run in (first, other))
    differ = {str(case): f"{theirs[fold, case]} and {mine[fold, case]}" for fold, case in mine
              if mine[fold, case] != theirs[fold, case]}  # fmt: skip
    if differ:
        raise UserErrors(_error(first, other, "the target of", differ, "compare runs of the same data"))


def _listed(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
    return f"{', '.join(cases[:SHOWN])}{more}"
