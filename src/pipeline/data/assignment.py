"""Which fold a patient goes to: even sizes and even strata, without parting what belongs together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.data.case import Case


def assign_evenly(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each group, (n,) int: greedy, the groups with most cases and of rare strata first, else at random.

    ``weights``: (n, strata), cases of each group in each stratum. Each group goes to the fold where the sum over
    strata, and over all cases, of (share that the fold holds)^2 grows least. A fold without a group always costs
    least, so that none stays empty where there are ``count`` groups.
    """
    weights = np.column_stack([weights, weights.sum(axis=1)])
    totals = weights.sum(axis=0)
    shuffled = rng.permutation(len(weights))
    rarity = (weights[:, :-1] / totals[:-1]).max(axis=1)
    order = shuffled[np.lexsort((-rarity[shuffled], -weights[shuffled, -1]))]
    held = np.zeros((count, len(totals)))
    folds = np.zeros(len(weights), dtype=int)
    for number in order:
        cost = ((2 * held * weights[number] + weights[number] ** 2) / totals**2).sum(axis=1)
        folds[number] = rng.choice(np.flatnonzero(cost <= cost.min() + 1e-12))
        held[folds[number]] += weights[number]
    return folds


def group_patients(cases: Sequence[Case], together: Sequence[Sequence[str]] = ()) -> list[list[Case]]:
    """Cases that must share a fold: those of a patient, and those of patients tied by a group of case ids."""
    patient_of = {case.case_id: case.patient_id for case in cases}
    head = {patient: patient for patient in patient_of.values()}

    def find(patient: str) -> str:
        while head[patient] != patient:
            head[patient] = head[head[patient]]
            patient = head[patient]
        return patient

    for tied in together:
        patients = [patient_of[case_id] for case_id in tied if case_id in patient_of]
        for other in patients[1:]:
            head[find(other)] = find(patients[0])
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[find(case.patient_id)].append(case)
    return list(groups.values())
