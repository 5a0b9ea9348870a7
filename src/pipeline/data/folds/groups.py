"""What no split may part: the cases of a patient, duplicates, and the patients of a site where sites are held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipeline.data.case import Case
from pipeline.data.folds.fold import Group
from pipeline.errors import UserError


def group_cases(
    cases: Sequence[Case], group: Group = "patient", together: Sequence[Sequence[str]] = ()
) -> list[list[Case]]:
    """Groups of cases that must share a fold, in an order that does not depend on that of the cases.

    The cases of a patient; with ``group`` "site" those of a site; and those of patients tied by a group of case ids
    (``together``). Groups are ordered by their first site, else by their first case id. Raises UserError for a case
    without a site where sites are asked for.
    """
    patient_of = {case.case_id: case.patient_id for case in cases}
    ties: list[list[str]] = [[patient_of[case_id] for case_id in tied if case_id in patient_of] for tied in together]
    if group == "site":
        ties += _patients_of_sites(cases)
    head = _heads(patient_of.values(), ties)
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[head[case.patient_id]].append(case)
    return sorted(groups.values(), key=lambda members: min(_rank(case, group) for case in members))


def _rank(case: Case, group: Group) -> tuple[str, str]:
    return (str(case.site) if group == "site" else "", case.case_id)


def _patients_of_sites(cases: Sequence[Case]) -> list[list[str]]:
    without = sorted(case.case_id for case in cases if not case.site)
    if without:
        raise UserError(
            f"folds.group=site: {len(without)} of {len(cases)} cases have no site, such as {without[0]}",
            "name the column in data.columns.site and fill it in, or set folds.group=patient",
        )
    patients: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        patients[str(case.site)].append(case.patient_id)
    return list(patients.values())


def _heads(patients: Iterable[str], ties: Iterable[Sequence[str]]) -> dict[str, str]:
    """One patient that stands for all that are tied to each other, for every patient (union-find)."""
    head = {patient: patient for patient in patients}

    def find(patient: str) -> str:
        while head[patient] != patient:
            head[patient] = head[head[patient]]
            patient = head[patient]
        return patient

    for tied in ties:
        for other in tied[1:]:
            head[find(other)] = find(tied[0])
    return {patient: find(patient) for patient in head}
