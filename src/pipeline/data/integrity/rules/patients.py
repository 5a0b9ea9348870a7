"""Patients, targets and folds: what must hold before the data are split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from pipeline.data.folds.given import TRAIN, VALIDATION
from pipeline.data.integrity.result import Fault, Severity
from pipeline.data.integrity.view import View

TEST = ("test", "testing")


def case_ids(view: View) -> Iterator[Fault]:
    """Two cases of one name would overwrite each other's results."""
    counts = Counter(case.case_id for case in view.dataset.cases)
    for case_id, count in counts.items():
        if count > 1:
            fault = f"case id {case_id} stands for {count} cases (duplicate)"
            yield Fault("error", case_id, view.index, fault, "give each case its own id", "case_id")


def enough_patients(view: View) -> Iterator[Fault]:
    """No fold without a patient."""
    folds, patients = view.settings.folds, len(view.dataset.patients)
    if folds is not None and patients < folds:
        fault = f"too few patients: folds.count={folds} needs at least {folds} patients; data has {patients}"
        remedy = f"set folds.count={patients}" if patients > 1 else "add patients"
        yield view.dataset_fault("error", fault, remedy, "few_patients")


def given_folds(view: View) -> Iterator[Fault]:
    """A patient stands in two of the folds, or two of the splits, that the table gives."""
    folds: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, set[str]] = defaultdict(set)
    for case in view.dataset.cases:
        if case.fold is not None:
            folds[case.patient_id].add(str(case.fold))
        if case.split:
            splits[case.patient_id].add(case.split.casefold())
    used: Severity = "error" if view.settings.predefined else "warning"
    given: list[tuple[str, Severity, dict[str, set[str]]]] = [("fold", "error", folds), ("split", used, splits)]
    for what, severity, parts in given:
        for patient, found in parts.items():
            if len(found) > 1:
                said = f"patient {patient} stands in {what}s {', '.join(sorted(found))}: leaks into validation"
                remedy = f"give all cases of a patient the same {what}"
                yield view.dataset_fault(severity, said, remedy, f"patient_{what}s")


def unused_splits(view: View) -> Iterator[Fault]:
    """Cases that the given split leaves out because its name for them is none, or not known."""
    if not view.settings.predefined or not any(case.split for case in view.dataset.cases):
        return
    counts = Counter(case.split or "" for case in view.dataset.cases)
    for split, count in counts.items():
        if split.casefold() not in (*TRAIN, *VALIDATION, *TEST):
            said = f"{count} cases have {f'the split {split!r}' if split else 'no split'}: they are not used"
            yield view.dataset_fault("warning", said, "name it train, val or test", "unused_split")


def targets(view: View) -> Iterator[Fault]:
    """Targets that are missing, all equal, too rare, or differ within a patient."""
    dataset = view.dataset
    if dataset.task != "classification":
        return
    patients: dict[str, set[str]] = {name: set() for name in dataset.classes}
    by_patient: dict[str, set[str]] = defaultdict(set)
    for case in dataset.cases:
        if case.target is None:
            if view.settings.missing_target != "error":
                continue
            fault = f"target of case {case.case_id} is missing"
            remedy = "fill it in, take the case out, or set data.missing.target=drop or impute"
            yield Fault("error", case.case_id, view.index, fault, remedy, "no_target")
        else:
            patients.setdefault(case.target, set()).add(case.patient_id)
            by_patient[case.patient_id].add(case.target)
    if len(patients) < 2:
        fault = f"all cases have one target class ({', '.join(patients) or 'none'}); two are needed"
        yield view.dataset_fault("error", fault, "add cases of another class", "one_class")
    folds = view.settings.folds
    for name, found in patients.items():
        if folds is not None and len(found) < folds:
            fault = f"class {name} has {len(found)} patient(s), fewer than folds.count={folds}"
            yield view.dataset_fault(
                "warning", fault, f"set folds.count={max(2, len(found))}, or add cases", "rare_class"
            )
    for patient, classes in by_patient.items():
        if len(classes) > 1:
            fault = f"patient {patient} has cases of different target classes: {', '.join(sorted(classes))}"
            yield view.dataset_fault("warning", fault, "make sure that they do not contradict", "patient_targets")
