"""What a case may lack (a modality, a mask, a target) and what is done about it before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.data.case import Case, Dataset
from pipeline.errors import UserError

POLICY = {"modality": "error", "voxels": "error", "target": "error"}  # nothing is missing without being said


def lacking_modality(dataset: Dataset) -> list[Case]:
    """The cases without one of the data set's modalities."""
    return [case for case in dataset.cases if any(name not in case.images for name in dataset.modalities)]


def lacking_truth(dataset: Dataset) -> list[Case]:
    """The cases without a mask (segmentation) or a target (classification)."""
    if dataset.task == "segmentation":
        return [case for case in dataset.cases if case.label is None]
    return [case for case in dataset.cases if case.target is None]


def settle_missing(dataset: Dataset, policy: Mapping[str, Any] | None) -> Dataset:
    """The data set without the cases that ``data.missing`` drops, with a note for all that lack something.

    What the policy calls an error stays in the data set for the integrity check to report with everything else.
    Raises UserError where a mask would have to be invented.
    """
    chosen = {**POLICY, **(policy or {})}
    if dataset.task == "segmentation" and chosen["target"] == "impute" and lacking_truth(dataset):
        raise UserError(
            f"data.missing.target=impute cannot invent the mask of case {lacking_truth(dataset)[0].case_id}",
            "set data.missing.target=drop, or give the mask",
        )
    for key, lacking, what in (
        ("modality", lacking_modality(dataset), f"one of the modalities {', '.join(dataset.modalities)}"),
        ("target", lacking_truth(dataset), "a mask" if dataset.task == "segmentation" else "a target"),
    ):
        if not lacking or chosen[key] == "error":
            continue
        note = f"{len(lacking)} cases lack {what}: {SAID[chosen[key]]} (data.missing.{key}={chosen[key]})"
        left = dataset.cases
        if chosen[key] == "drop":
            dropped = {case.case_id for case in lacking}
            left = tuple(case for case in left if case.case_id not in dropped)
        dataset = replace(dataset, cases=left, notes=(*dataset.notes, note))
    return dataset


SAID = {
    "drop": "dropped",
    "zeros": "filled with zeros after preprocessing",
    "mean": "filled with the mean of the training cases",
    "impute": "they train as the commonest class and are not evaluated",
}
