"""Cross-validation: train every fold, pool the out-of-fold cases, summarise, record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from pipeline.config.plans import PLAN_FILE
from pipeline.config.recorded import EXPERIMENT_FILE
from pipeline.data.fingerprint import FINGERPRINT_FILE, Fingerprint
from pipeline.data.folds import Fold
from pipeline.evaluation.cases import CASES_FILE, read_cases, write_cases
from pipeline.evaluation.postprocessing import in_words
from pipeline.evaluation.summary import summarise
from pipeline.json_file import write_json
from pipeline.prediction.cases import prediction_name
from pipeline.prediction.postprocessing import POSTPROCESS_FILE, postprocess_run
from pipeline.prediction.trained_run import MODEL_FILE, ModelCard
from pipeline.tasks.classification import ClassificationTask
from pipeline.tasks.segmentation import SegmentationTask
from pipeline.tracking.changes import CHANGES_FILE
from pipeline.tracking.tracker import Tracker
from pipeline.training.before import PROVENANCE_FILE
from pipeline.training.device import accelerator_kind, choose_precision
from pipeline.training.experiment import Experiment
from pipeline.training.fold import FITTED_FILE, PACE_FILE, FittedFold
from pipeline.training.fold_run import FINISHED_FILE, FoldRun, fold_key
from pipeline.training.manifest import MANIFEST_FILE
from pipeline.training.pictures import draw_classification, draw_curves, draw_segmentation

PARENT = "parent"
RAW_CASES_FILE = "cases_raw.csv"  # cases.csv before postprocessing
RECORDED = (
    EXPERIMENT_FILE,
    "config.yaml",
    PLAN_FILE,
    MODEL_FILE,
    "folds.json",
    MANIFEST_FILE,
    PROVENANCE_FILE,
    CHANGES_FILE,
    "check.json",
    FINGERPRINT_FILE,
)


class CrossValidation:
    """Runs the folds of an experiment and leaves cases.csv, summary.json, figures and MLflow runs behind."""

    def __init__(self, experiment: Experiment, tracker: Tracker | None) -> None:
        self.experiment = experiment
        self.settings = experiment.settings
        self.tracker = tracker
        self.output = experiment.output

    def run(self, tags: Mapping[str, str]) -> dict[str, Any]:
        """Train, predict, summarise. Returns the content of summary.json."""
        resolved = self.experiment.resolved()
        (self.output / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
        write_json(self.output / MODEL_FILE, self._card().as_json())
        if self.tracker is not None:
            self.tracker.start_run(PARENT, self.output.name, parent=None, tags=tags, params=resolved)
            for name in RECORDED:
                if (self.output / name).exists():
                    self.tracker.log_artifact(PARENT, self.output / name)
        fitted, rebalanced = {}, {}
        for fold in self.experiment.run_folds:
            run, key = FoldRun(self.experiment, fold), fold_key(fold.index)
            rebalanced[fold.index] = run.rebalancing.params
            trained = FittedFold.read(run.folder)
            if trained is not None and (run.folder / FINISHED_FILE).exists():
                fitted[fold.index] = trained
                self.experiment.console.print(f"fold {fold.index}: finished before", highlight=False)
                continue
            if run.rebalancing.line is not None:
                self.experiment.console.print(f"fold {fold.index}: {run.rebalancing.line}", highlight=False)
            if self.tracker is not None:
                params = {"fold": fold.index, "repeat": fold.repeat, **run.rebalancing.params}
                self.tracker.start_run(key, f"fold {fold.index}", parent=PARENT, tags=tags, params=params)
            fitted[fold.index] = run.train(partial(self._send, key))
            self._tell_what_ended(fold, fitted[fold.index])
            table = run.predict()
            table.insert(table.columns.get_loc("fold") + 1, "repeat", fold.repeat)
            write_cases(table, run.folder / CASES_FILE)
            self._end_fold(fold, run.folder)
        table = pd.concat([read_cases(self.output / fold_key(fold) / CASES_FILE) for fold in fitted], ignore_index=True)
        return self._finish(fitted, rebalanced, table)

    def _tell_what_ended(self, fold: Fold, fitted: FittedFold) -> None:
        schedule = self.settings.schedule
        if schedule.budget is None or schedule.epochs is None or fitted.epochs >= schedule.epochs:
            return
        self.experiment.console.print(
            f"fold {fold.index}: schedule.budget={schedule.budget} ended it after {fitted.epochs} of "
            f"{schedule.epochs} epochs, {fitted.steps} steps (schedule.budget=null lets them all run)",
            highlight=False,
        )

    def _send(self, key: str, metrics: Mapping[str, float], epoch: int) -> None:
        if self.tracker is not None:
            self.tracker.log_metrics(key, metrics, epoch)

    def _card(self) -> ModelCard:
        dataset = self.experiment.dataset
        precision, accelerator = self.settings.trainer.precision, self.settings.trainer.accelerator
        return ModelCard(
            task=self.settings.task,
            class_names=dataset.output_classes,
            label_values=dataset.labels.values if dataset.labels is not None else None,
            regions=dataset.labels.regions if dataset.labels is not None else None,
            modalities=dataset.modalities,
            incomplete=self.experiment.incomplete,
            modality_dropout=self.settings.sampling.modality_dropout,
            checkpoint=self.settings.evaluation.checkpoint,
            bf16=choose_precision(precision, accelerator_kind(accelerator)) == "bf16-mixed",
            spatial_dims=dataset.spatial_dims,
            channels=self.experiment.channels,
        )

    def _end_fold(self, fold: Fold, folder: Path) -> None:
        """Report a fold that is trained and predicted; the file that says it is finished comes last."""
        key, table = fold_key(fold.index), read_cases(folder / CASES_FILE)
        block = self._summarise(table, [fold.index])
        means = {name: entry["mean"] for name, entry in block["metrics"].items() if entry["mean"] is not None}
        self.experiment.console.print(f"fold {fold.index}: {_in_words(means)}", highlight=False)
        draw_curves({fold.index: folder / "metrics.csv"}, folder / "learning_curves.png", self._metric_name())
        if self.tracker is not None:
            self.tracker.log_metrics(key, {f"oof_{name}": value for name, value in means.items()}, 0)
            for name in (CASES_FILE, FITTED_FILE, PACE_FILE):
                self.tracker.log_artifact(key, folder / name)
            self.tracker.log_artifact(key, folder / "learning_curves.png", "figures")
            if self.settings.tracking.checkpoints:
                self.tracker.log_artifact(key, folder / "checkpoints", "checkpoints")
            self.tracker.end_run(key, "FINISHED")
        write_json(folder / FINISHED_FILE, {"cases": len(table)})

    def _summarise(self, table: pd.DataFrame, folds: list[int]) -> dict[str, Any]:
        how = self.settings.evaluation
        names = self.experiment.dataset.output_classes
        return summarise(self.settings.task, table, names, folds=folds, resamples=how.resamples, seed=how.seed)

    def _metric_name(self) -> str:
        return ClassificationTask.metric if self.settings.task == "classification" else SegmentationTask.metric

    def _finish(
        self,
        fitted: Mapping[int, FittedFold],
        rebalanced: Mapping[int, Mapping[str, Any]],
        table: pd.DataFrame,
    ) -> dict[str, Any]:
        experiment, output = self.experiment, self.output
        table, postprocessed = self._postprocess(table, list(fitted))
        write_cases(table, output / CASES_FILE)
        block = self._summarise(table, list(fitted)) | postprocessed
        if self.settings.evaluation.figures:
            self._draw(fitted, table)
        summary: dict[str, Any] = {
            "experiment": self.settings.name,
            "task": self.settings.task,
            "unit": Fingerprint.read(output / FINGERPRINT_FILE).unit,
            "run_dir": str(output),
            "mlflow": {"uri": None, "experiment_id": None, "run_id": None, "fold_run_ids": {}},
            "folds": [
                {
                    "fold": index,
                    "repeat": experiment.folds[index].repeat,
                    "n_train": len(experiment.folds[index].train),
                    "n_validation": len(experiment.folds[index].validation),
                    "epochs": fold.epochs,
                    "steps": fold.steps,
                    "seconds": round(fold.seconds, 1),
                    "best_validation_metric": fold.best_metric,
                    "best_epoch": fold.best_epoch,
                    "last_validation_metric": fold.last_metric,
                    "sampling_fallback": fold.fallbacks,
                    "skipped_steps": fold.skipped,
                    **rebalanced[index],
                }
                for index, fold in fitted.items()
            ],
            "checkpoint": self.settings.evaluation.checkpoint,
            "n_cases": int(table["case_id"].nunique()),
            "n_patients": int(table["patient_id"].nunique()),
            "repeats": int(table["repeat"].nunique()),
            "seconds": round(sum(fold.seconds for fold in fitted.values()), 1),
            **block,
        }
        if self.tracker is not None:
            self._record(summary)
        write_json(output / "summary.json", summary)
        if self.tracker is not None:
            self.tracker.log_artifact(PARENT, output / "summary.json")
            self.tracker.end_run(PARENT, "FINISHED")
        return summary

    def _postprocess(self, table: pd.DataFrame, folds: list[int]) -> tuple[pd.DataFrame, dict[str, Any]]:
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
            said["raw_metrics"] = self._summarise(raw, folds)["metrics"]
        return table, {"postprocessing": said}

    def _prediction_paths(self, table: pd.DataFrame) -> dict[tuple[int, str], Path]:
        """The predicted mask of each fold and case in ``table``."""
        names = {case.case_id: prediction_name(case) for case in self.experiment.dataset.cases}
        return {
            (fold, case): self.output / fold_key(fold) / "predictions" / names[case]
            for fold, case in table[["fold", "case_id"]].drop_duplicates().itertuples(index=False)
        }

    def _draw(self, fitted: Mapping[int, FittedFold], table: pd.DataFrame) -> None:
        figures = self.output / "figures"
        figures.mkdir(exist_ok=True)
        histories = {index: self.output / fold_key(index) / "metrics.csv" for index in fitted}
        draw_curves(histories, figures / "learning_curves.png", self._metric_name())
        if self.settings.task == "classification":
            draw_classification(table, self.experiment.dataset, figures)
            return
        table = table[table["repeat"] == table["repeat"].min()]  # a case once
        paths = {case: path for (_, case), path in self._prediction_paths(table).items()}
        draw_segmentation(table, self.experiment.dataset, paths, figures)

    def _record(self, summary: dict[str, Any]) -> None:
        assert self.tracker is not None
        metrics = {}
        for name, entry in summary["metrics"].items():
            values = {name: entry["mean"], f"{name}_ci95_low": entry["ci95"][0], f"{name}_ci95_high": entry["ci95"][1]}
            values |= {f"{name}/{label}": part["mean"] for label, part in entry["per_class"].items()}
            metrics.update({key: value for key, value in values.items() if value is not None})
        self.tracker.log_metrics(PARENT, metrics, 0)
        for name in (CASES_FILE, RAW_CASES_FILE, POSTPROCESS_FILE):
            if (self.output / name).exists():
                self.tracker.log_artifact(PARENT, self.output / name)
        if (self.output / "figures").exists():
            self.tracker.log_artifact(PARENT, self.output / "figures", "figures")
        self.tracker.flush()
        ids = self.tracker.run_ids()
        summary["mlflow"] = {
            "uri": self.tracker.uri,
            "experiment_id": self.tracker.experiment_id,
            "run_id": ids.get(PARENT),
            "fold_run_ids": {key: value for key, value in ids.items() if key != PARENT},
        }


def _in_words(means: Mapping[str, float]) -> str:
    shown = [
        name for name in ("dice", "surface_dice", "hd95_mm", "auroc", "balanced_accuracy", "accuracy") if name in means
    ]
    return ", ".join(f"{name} {means[name]:.3f}" for name in shown)
