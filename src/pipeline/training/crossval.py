"""Cross-validation: its MLflow run begun; its finished folds pooled, summarised and recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.config.plans import PLAN_FILE
from pipeline.config.recorded import EXPERIMENT_FILE
from pipeline.config.schema import TrainConfig
from pipeline.data.fingerprint import FINGERPRINT_FILE, Fingerprint
from pipeline.evaluation.cases import CASES_FILE, read_cases, write_cases
from pipeline.evaluation.postprocessing import in_words
from pipeline.json_file import write_json
from pipeline.prediction.cases import prediction_name
from pipeline.prediction.postprocessing import POSTPROCESS_FILE, postprocess_run
from pipeline.prediction.trained_run import MODEL_FILE
from pipeline.tracking.changes import CHANGES_FILE
from pipeline.tracking.tracker import Tracker
from pipeline.training.before import PROVENANCE_FILE
from pipeline.training.begin import CONFIG_FILE
from pipeline.training.experiment import Experiment
from pipeline.training.finished import rebalanced
from pipeline.training.fold import FittedFold
from pipeline.training.manifest import MANIFEST_FILE
from pipeline.training.pictures import draw_classification, draw_curves, draw_segmentation
from pipeline.training.results import metric_name, summarised
from pipeline.training.run_folder import SUMMARY_FILE
from pipeline.training.tracked import PARENT, fold_key, fold_run_ids, parent_of_run

RAW_CASES_FILE = "cases_raw.csv"  # cases.csv before postprocessing
RECORDED = (
    EXPERIMENT_FILE,
    CONFIG_FILE,
    PLAN_FILE,
    MODEL_FILE,
    "folds.json",
    MANIFEST_FILE,
    PROVENANCE_FILE,
    CHANGES_FILE,
    "check.json",
    FINGERPRINT_FILE,
)


def start_parent(
    tracker: Tracker, settings: TrainConfig, output: Path, tags: Mapping[str, str], params: Mapping[str, Any]
) -> None:
    """Begin the MLflow run of a cross-validation, or go on with it, and record what its folder holds so far."""
    tracker.start_run(PARENT, output.name, parent=parent_of_run(settings), tags=tags, params=params)
    for name in RECORDED:
        if (output / name).exists():
            tracker.log_artifact(PARENT, output / name)


class Pooled:
    """The finished ``folds`` of an experiment: leaves cases.csv, summary.json and figures, and ends the MLflow run."""

    def __init__(self, experiment: Experiment, folds: Sequence[int], tracker: Tracker | None) -> None:
        self.experiment = experiment
        self.settings = experiment.settings
        self.output = experiment.output
        self.folds = list(folds)
        self.tracker = tracker

    def summarise(self) -> dict[str, Any]:
        """Returns the content of summary.json."""
        fitted = {index: self._fitted(index) for index in self.folds}
        table = pd.concat([read_cases(self._folder(fold) / CASES_FILE) for fold in fitted], ignore_index=True)
        table, postprocessed = self._postprocess(table)
        write_cases(table, self.output / CASES_FILE)
        block = summarised(self.experiment, table, self.folds) | postprocessed
        if self.settings.evaluation.figures:
            self._draw(table)
        summary: dict[str, Any] = {
            "experiment": self.settings.name,
            "task": self.settings.task,
            "unit": Fingerprint.read(self.output / FINGERPRINT_FILE).unit,
            "run_dir": str(self.output),
            "mlflow": {"uri": None, "experiment_id": None, "run_id": None, "fold_run_ids": {}},
            "folds": [self._of_fold(index, fold) for index, fold in fitted.items()],
            "checkpoint": self.settings.evaluation.checkpoint,
            "n_cases": int(table["case_id"].nunique()),
            "n_patients": int(table["patient_id"].nunique()),
            "repeats": int(table["repeat"].nunique()),
            "seconds": round(sum(fold.seconds for fold in fitted.values()), 1),
            **block,
        }
        if self.tracker is not None:
            self._record(self.tracker, summary)
        write_json(self.output / SUMMARY_FILE, summary)
        if self.tracker is not None:
            self.tracker.log_artifact(PARENT, self.output / SUMMARY_FILE)
            self.tracker.end_run(PARENT, "FINISHED")
        return summary

    def _folder(self, fold: int) -> Path:
        return self.output / fold_key(fold)

    def _fitted(self, fold: int) -> FittedFold:
        fitted = FittedFold.read(self._folder(fold))
        assert fitted is not None
        return fitted

    def _of_fold(self, index: int, fitted: FittedFold) -> dict[str, Any]:
        fold = self.experiment.folds[index]
        return {
            "fold": index,
            "repeat": fold.repeat,
            "n_train": len(fold.train),
            "n_validation": len(fold.validation),
            "epochs": fitted.epochs,
            "steps": fitted.steps,
            "parameters": fitted.parameters,
            "seconds": round(fitted.seconds, 1),
            "best_validation_metric": fitted.best_metric,
            "best_epoch": fitted.best_epoch,
            "last_validation_metric": fitted.last_metric,
            "sampling_fallback": fitted.fallbacks,
            "skipped_steps": fitted.skipped,
            **rebalanced(self._folder(index)),
        }

    def _postprocess(self, table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The table after postprocessing, and what summary.json says of it and of the table before."""
        dataset, how = self.experiment.dataset, self.settings.evaluation
        if dataset.labels is None or how.postprocess == "none":
            return table, {}
        raw, (table, content) = (
            table,
            postprocess_run(
                table,
                self._prediction_paths(table),
                {case.case_id: case for case in dataset.cases},
                dataset.labels,
                connectivity=how.connectivity,
                tolerance_mm=how.tolerance_mm,
                modalities=dataset.modalities,
                of_folds=len(self.experiment.folds),
                workers=torch.get_num_threads(),
                output=self.output,
            ),
        )
        self.experiment.console.print(in_words(content), highlight=False, soft_wrap=True)
        said = {"kept": content["kept"], "decided_on": content["decided_on"]}
        if content["kept"]:
            write_cases(raw, self.output / RAW_CASES_FILE)
            said["raw_metrics"] = summarised(self.experiment, raw, self.folds)["metrics"]
        return table, {"postprocessing": said}

    def _prediction_paths(self, table: pd.DataFrame) -> dict[tuple[int, str], Path]:
        """The predicted mask of each fold and case in ``table``."""
        names = {case.case_id: prediction_name(case) for case in self.experiment.dataset.cases}
        return {
            (fold, case): self._folder(fold) / "predictions" / names[case]
            for fold, case in table[["fold", "case_id"]].drop_duplicates().itertuples(index=False)
        }

    def _draw(self, table: pd.DataFrame) -> None:
        figures = self.output / "figures"
        figures.mkdir(exist_ok=True)
        histories = {index: self._folder(index) / "metrics.csv" for index in self.folds}
        draw_curves(histories, figures / "learning_curves.png", metric_name(self.settings))
        if self.settings.task == "classification":
            draw_classification(table, self.experiment.dataset, figures)
            return
        table = table[table["repeat"] == table["repeat"].min()]  # a case once
        paths = {case: path for (_, case), path in self._prediction_paths(table).items()}
        draw_segmentation(table, self.experiment.dataset, paths, figures)

    def _record(self, tracker: Tracker, summary: dict[str, Any]) -> None:
        metrics = {}
        for name, entry in summary["metrics"].items():
            values = {name: entry["mean"], f"{name}_ci95_low": entry["ci95"][0], f"{name}_ci95_high": entry["ci95"][1]}
            values |= {f"{name}/{label}": part["mean"] for label, part in entry["per_class"].items()}
            metrics.update({key: value for key, value in values.items() if value is not None})
        tracker.log_metrics(PARENT, metrics, 0)
        for name in (CASES_FILE, RAW_CASES_FILE, POSTPROCESS_FILE):
            if (self.output / name).exists():
                tracker.log_artifact(PARENT, self.output / name)
        if (self.output / "figures").exists():
            tracker.log_artifact(PARENT, self.output / "figures", "figures")
        tracker.flush()
        summary["mlflow"] = {
            "uri": tracker.uri,
            "experiment_id": tracker.experiment_id,
            "run_id": tracker.run_ids().get(PARENT),
            "fold_run_ids": fold_run_ids(self.output, self.folds),
        }
