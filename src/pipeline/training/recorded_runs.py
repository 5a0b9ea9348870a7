"""Finished runs as they were recorded: every case with its files, patient, folds and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from pipeline.config.recorded import read_plain_yaml
from pipeline.errors import UserError
from pipeline.evaluation.cases import CASES_FILE, read_cases
from pipeline.json_file import read_json
from pipeline.prediction.trained_run import MODEL_FILE, ModelCard
from pipeline.training.manifest import Manifest
from pipeline.training.run_folder import SUMMARY_FILE


@dataclass(frozen=True)
class RecordedCase:
    """What the manifest says of a case: ``files``: path to sha256; ``folds``: in which it is held out."""

    patient: str
    folds: str
    files: Mapping[str, str]

    @property
    def content(self) -> list[str]:
        """The sha256 of its files, wherever they lie."""
        return sorted(self.files.values())


@dataclass(frozen=True)
class RecordedRun:
    """The record of a finished run. ``table``: its cases.csv. ``trained_on``: the training cases of each fold."""

    name: str
    folder: Path
    card: ModelCard
    unit: str
    tolerance_mm: float
    manifest: Manifest
    trained_on: Mapping[int, frozenset[str]]
    table: pd.DataFrame

    @classmethod
    def read(cls, name: str, folder: Path) -> RecordedRun:
        """Raises UserError for a folder that is no run's, or whose run did not end."""
        card = ModelCard.read(folder / MODEL_FILE)
        path = folder / SUMMARY_FILE
        if not path.is_file() or not (folder / CASES_FILE).is_file():
            raise UserError(
                f"{folder}: this run has no {SUMMARY_FILE} and {CASES_FILE}, it did not end",
                f"go on with it: python -m pipeline train resume={folder}",
            )
        try:
            path, summary = folder / SUMMARY_FILE, read_json(folder / SUMMARY_FILE)
            unit = str(summary["unit"])
            path, config = folder / "config.yaml", read_plain_yaml(folder / "config.yaml")
            tolerance = float(config["evaluation"]["tolerance_mm"])
            path, content = folder / "folds.json", read_json(folder / "folds.json")
            trained = {int(fold["index"]): frozenset(fold["train"]["cases"]) for fold in content["folds"]}
            path, table = folder / CASES_FILE, read_cases(folder / CASES_FILE)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not readable: {error!r}") from error
        return cls(name, folder, card, unit, tolerance, Manifest.read(folder), trained, table)

    @cached_property
    def cases(self) -> dict[str, RecordedCase]:
        """By id, all of the data set."""
        found: dict[str, RecordedCase] = {}
        for case, patient, folds, path, digest in self.manifest.rows:
            files = {**found[case].files, path: digest} if case in found else {path: digest}
            found[case] = RecordedCase(patient, folds, files)
        return found

    @property
    def keys(self) -> pd.MultiIndex:
        """Fold, case and (in segmentation) class of every row of the table."""
        return pd.MultiIndex.from_frame(self.table[self.key_columns])

    @property
    def key_columns(self) -> list[str]:
        """The columns that tell one row of the table from another."""
        return ["fold", "case_id", *(["class"] if self.card.task == "segmentation" else [])]

    def restricted(self, keys: pd.MultiIndex) -> RecordedRun:
        """With the rows of these keys alone."""
        return replace(self, table=self.table[self.keys.isin(keys)].reset_index(drop=True))
