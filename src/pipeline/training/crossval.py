"""Cross-validation: train every fold, pool the out-of-fold cases, summarise, record."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from pipeline.config.build import build
from pipeline.data.case import Case
from pipeline.data.folds import Fold
from pipeline.data.loading import TrainingPatches, WholeCases, training_loader, validation_loader
from pipeline.data.order import CaseOrder, EpochBatches, groups_by_class
from pipeline.data.patches import PatchSampling
from pipeline.evaluation.segmentation_metrics import EMPTY_MASK_RULE
from pipeline.evaluation.summary import summarise_classification, summarise_segmentation
from pipeline.inference.predictor import SlidingWindow, WholeImage
from pipeline.prediction.cases import classify_cases, prediction_name, segment_cases
from pipeline.prediction.trained_run import MODEL_FILE, ModelCard
from pipeline.prediction.weights import network_weights, read_checkpoint
from pipeline.randomness import draw_seed, generator
from pipeline.tasks.base import Task
from pipeline.tasks.classification import ClassificationTask
from pipeline.tasks.segmentation import SegmentationTask
from pipeline.tracking.tracker import Tracker
from pipeline.training.device import accelerator_kind, choose_precision
from pipeline.training.duration import seconds_of
from pipeline.training.experiment import Experiment, compose
from pipeline.training.fold import FittedFold, LoopSettings, fit_fold
from pipeline.training.pace import Pace
from pipeline.training.pictures import draw_classification, draw_curves, draw_segmentation

PARENT = "parent"


def fold_key(index: int) -> str:
    """The name of a fold in folders and in tracking."""
    return f"fold_{index}"


def predictor_of(experiment: Experiment) -> Any:
    """How whole images are predicted."""
    if experiment.settings.task == "classification":
        return WholeImage()
    return SlidingWindow(experiment.patch_size, **experiment.settings.inference.model_dump())


class CrossValidation:
    """Runs the folds of an experiment and leaves cases.csv, summary.json, figures and MLflow runs behind."""

    def __init__(self, experiment: Experiment, tracker: Tracker | None) -> None:
        self.experiment = experiment
        self.settings = experiment.settings
        self.tracker = tracker
        self.output = experiment.output
        self.predictor = predictor_of(experiment)
        trainer = self.settings.trainer
        self.device = torch.device(accelerator_kind(trainer.accelerator))
        self.precision = choose_precision(trainer.precision, self.device.type)

    def run(self, tags: Mapping[str, str]) -> dict[str, Any]:
        """Train, predict, summarise. Returns the content of summary.json."""
        begun = time.monotonic()
        resolved = self.experiment.resolved()
        (self.output / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
        write_json(self.output / MODEL_FILE, self._card().as_json())
        if self.tracker is not None:
            self.tracker.start_run(PARENT, self.output.name, parent=None, tags=tags, params=resolved)
            for name in ("config.yaml", MODEL_FILE, "folds.json", "provenance.json", "check.json"):
                if (self.output / name).exists():
                    self.tracker.log_artifact(PARENT, self.output / name)
        fitted, tables = {}, []
        for fold in self.experiment.run_folds:
            fitted[fold.index] = self._train(fold, tags)
            tables.append(self._predict(fold))
            self._end_fold(fold, tables[-1])
        return self._finish(fitted, pd.concat(tables, ignore_index=True), time.monotonic() - begun)

    def _card(self) -> ModelCard:
        dataset = self.experiment.dataset
        return ModelCard(
            task=self.settings.task,
            class_names=dataset.output_classes,
            label_values=dataset.labels.values if dataset.labels is not None else None,
            modalities=dataset.modalities,
            checkpoint=self.settings.evaluation.checkpoint,
            bf16=self.precision == "bf16-mixed",
            spatial_dims=dataset.spatial_dims,
            channels=self.experiment.channels,
        )

    # one fold ---------------------------------------------------------------------------------------------------

    def _train(self, fold: Fold, tags: Mapping[str, str]) -> FittedFold:
        experiment, settings = self.experiment, self.settings
        key = fold_key(fold.index)
        cases, held_out = experiment.cases(fold.train), experiment.cases(fold.validation)
        config = experiment.resolved(experiment.class_weights(cases))
        if self.tracker is not None:
            weights = {"class_weights": config["derived"]["class_weights"]}
            self.tracker.start_run(key, f"fold {fold.index}", parent=PARENT, tags=tags, params={"fold": fold.index, **weights})
        targets = experiment.target_indices(cases)
        patches = TrainingPatches(
            cases,
            experiment.store,
            PatchSampling(settings.sampling.mode, experiment.patch_size, settings.sampling.foreground_fraction),
            compose(build(config["transforms"]["augmentation"], "transforms.augmentation", self.experiment.trusted)),
            targets=targets,
            seed=settings.seed,
        )
        batches = self._batches(len(cases), targets)
        subset = self._validation_subset(held_out)
        size = 1 if settings.task == "segmentation" else settings.sampling.batch_size
        trainer, schedule = settings.trainer, settings.schedule
        pace = Pace(
            build(config["schedule"]["shape"], "schedule.shape", self.experiment.trusted),
            total_steps=None if schedule.epochs is None else schedule.epochs * len(batches) // trainer.accumulate,
            budget=None if schedule.budget is None else seconds_of(schedule.budget),
        )
        return fit_fold(
            self._task(config, fold),
            training_loader(patches, batches, workers=trainer.workers),
            validation_loader(
                WholeCases(subset, experiment.store, targets=experiment.target_indices(subset)), batch_size=size
            ),
            pace,
            LoopSettings(
                accelerator=trainer.accelerator,
                devices=trainer.devices,
                num_nodes=trainer.num_nodes,
                strategy=trainer.strategy,
                precision=self.precision,
                max_seconds=None if trainer.max_time is None else seconds_of(trainer.max_time),
                max_steps=trainer.max_steps,
                gradient_clip=trainer.gradient_clip,
                accumulate=trainer.accumulate,
                ema_decay=trainer.ema_decay,
                validate_every=trainer.validate_every,
                early_stopping=trainer.early_stopping,
            ),
            folder=self.output / key,
            title=f"fold {fold.index}",
            console=experiment.console,
            send=lambda metrics, epoch: None if self.tracker is None else self.tracker.log_metrics(key, metrics, epoch),
        )

    def _batches(self, cases: int, targets: list[int] | None) -> EpochBatches:
        sampling = self.settings.sampling
        balanced = sampling.mode == "balanced" and targets is not None
        groups = groups_by_class(targets) if balanced and targets is not None else (tuple(range(cases)),)
        rank, world = world_of(self.settings.trainer)
        together = sampling.batch_size * world
        return EpochBatches(
            CaseOrder(groups, self.settings.seed),
            batches=sampling.batches_per_epoch or max(1, round(cases / together)),
            batch_size=sampling.batch_size,
            process=rank,
            processes=world,
        )

    def _validation_subset(self, cases: list[Case]) -> list[Case]:
        """A fixed part of the held-out cases: classification always uses all, they are cheap."""
        most = self.settings.trainer.validate_cases
        if self.settings.task == "classification" or most is None or most >= len(cases):
            return cases
        chosen = generator(self.settings.seed, "validation").permutation(len(cases))[:most]
        return [cases[index] for index in sorted(chosen.tolist())]

    def _task(self, config: Mapping[str, Any], fold: Fold) -> Task:
        torch.manual_seed(draw_seed(self.settings.seed, "weights", fold.index))
        network = build(config["network"], "network", self.experiment.trusted)
        loss = build(config["loss"]["function"], "loss.function", self.experiment.trusted)
        optimizer = build(config["optimizer"], "optimizer", self.experiment.trusted)
        names, seed = self.experiment.dataset.output_classes, self.settings.seed
        if self.settings.task == "classification":
            return ClassificationTask(network, loss, optimizer, class_names=names, seed=seed)
        return SegmentationTask(network, loss, optimizer, predictor=self.predictor, class_names=names, seed=seed)

    def _predict(self, fold: Fold) -> pd.DataFrame:
        """Out-of-fold predictions with the weights as they stand in the checkpoint."""
        experiment, settings = self.experiment, self.settings
        network = build(experiment.resolved()["network"], "network", self.experiment.trusted)
        checkpoint = self.output / fold_key(fold.index) / "checkpoints" / f"{settings.evaluation.checkpoint}.ckpt"
        network.load_state_dict(network_weights(read_checkpoint(checkpoint)))
        network.to(self.device).eval()
        cases, bf16 = experiment.cases(fold.validation), self.precision == "bf16-mixed"
        with experiment.console.status(f"fold {fold.index}: predicting {len(cases)} cases"):
            if settings.task == "classification":
                return classify_cases(
                    [network],
                    self.predictor,
                    cases,
                    experiment.store.__getitem__,
                    experiment.dataset.classes,
                    fold=fold.index,
                    batch=settings.sampling.batch_size,
                    device=self.device,
                    bf16=bf16,
                )
            assert experiment.dataset.labels is not None
            return segment_cases(
                [network],
                self.predictor,
                cases,
                experiment.store.__getitem__,
                experiment.dataset.labels,
                fold=fold.index,
                tolerance_mm=settings.evaluation.tolerance_mm,
                folder=self.output / fold_key(fold.index) / "predictions",
                device=self.device,
                bf16=bf16,
            )

    def _end_fold(self, fold: Fold, table: pd.DataFrame) -> None:
        key = fold_key(fold.index)
        folder = self.output / key
        table.to_csv(folder / "cases.csv", index=False)
        block = self._summarise(table, [fold.index])
        means = {name: entry["mean"] for name, entry in block["metrics"].items() if entry["mean"] is not None}
        self.experiment.console.print(f"fold {fold.index}: {_in_words(means)}", highlight=False)
        draw_curves({fold.index: folder / "metrics.csv"}, folder / "learning_curves.png", self._metric_name())
        if self.tracker is not None:
            self.tracker.log_metrics(key, {f"oof_{name}": value for name, value in means.items()}, 0)
            self.tracker.log_artifact(key, folder / "cases.csv")
            self.tracker.log_artifact(key, folder / "learning_curves.png", "figures")
            if self.settings.tracking.checkpoints:
                self.tracker.log_artifact(key, folder / "checkpoints", "")
            self.tracker.end_run(key, "FINISHED")

    # all folds --------------------------------------------------------------------------------------------------

    def _summarise(self, table: pd.DataFrame, folds: list[int]) -> dict[str, Any]:
        how = {"folds": folds, "resamples": self.settings.evaluation.resamples, "seed": self.settings.evaluation.seed}
        if self.settings.task == "classification":
            return summarise_classification(table, self.experiment.dataset.classes, **how)
        return summarise_segmentation(table, **how) | {"empty_masks": EMPTY_MASK_RULE}

    def _metric_name(self) -> str:
        return ClassificationTask.metric if self.settings.task == "classification" else SegmentationTask.metric

    def _finish(self, fitted: Mapping[int, FittedFold], table: pd.DataFrame, seconds: float) -> dict[str, Any]:
        experiment, output = self.experiment, self.output
        table.to_csv(output / "cases.csv", index=False)
        block = self._summarise(table, list(fitted))
        if self.settings.evaluation.figures:
            self._draw(fitted, table)
        summary: dict[str, Any] = {
            "experiment": self.settings.name,
            "task": self.settings.task,
            "run_dir": str(output),
            "mlflow": {"uri": None, "experiment_id": None, "run_id": None, "fold_run_ids": {}},
            "folds": [
                {
                    "fold": index,
                    "n_train": len(experiment.folds[index].train),
                    "n_validation": len(experiment.folds[index].validation),
                    "epochs": fold.epochs,
                    "steps": fold.steps,
                    "seconds": round(fold.seconds, 1),
                    "best_validation_metric": fold.best_metric,
                    "best_epoch": fold.best_epoch,
                }
                for index, fold in fitted.items()
            ],
            "checkpoint": self.settings.evaluation.checkpoint,
            "n_cases": int(table["case_id"].nunique()),
            "n_patients": int(table["patient_id"].nunique()),
            "seconds": round(seconds, 1),
            **block,
        }
        if self.tracker is not None:
            self._record(summary)
        write_json(output / "summary.json", summary)
        if self.tracker is not None:
            self.tracker.log_artifact(PARENT, output / "summary.json")
            self.tracker.end_run(PARENT, "FINISHED")
        return summary

    def _draw(self, fitted: Mapping[int, FittedFold], table: pd.DataFrame) -> None:
        figures = self.output / "figures"
        figures.mkdir(exist_ok=True)
        histories = {index: fold.folder / "metrics.csv" for index, fold in fitted.items()}
        draw_curves(histories, figures / "learning_curves.png", self._metric_name())
        if self.settings.task == "classification":
            draw_classification(table, self.experiment.dataset, figures)
            return
        names = {case.case_id: prediction_name(case) for case in self.experiment.dataset.cases}
        fold_of = dict(zip(table["case_id"], table["fold"], strict=True))
        paths = {case: self.output / fold_key(fold) / "predictions" / names[case] for case, fold in fold_of.items()}
        draw_segmentation(table, self.experiment.dataset, paths, figures)

    def _record(self, summary: dict[str, Any]) -> None:
        assert self.tracker is not None
        metrics = {}
        for name, entry in summary["metrics"].items():
            values = {name: entry["mean"], f"{name}_ci95_low": entry["ci95"][0], f"{name}_ci95_high": entry["ci95"][1]}
            values |= {f"{name}/{label}": part["mean"] for label, part in entry["per_class"].items()}
            metrics.update({key: value for key, value in values.items() if value is not None})
        self.tracker.log_metrics(PARENT, metrics, 0)
        self.tracker.log_artifact(PARENT, self.output / "cases.csv")
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


def world_of(trainer: Any) -> tuple[int, int]:
    """Rank and number of processes of this job, before Lightning has started them."""
    import os

    world = int(os.environ.get("WORLD_SIZE", 0))
    if world:
        return int(os.environ.get("RANK", 0)), world
    if trainer.devices == "auto":
        devices = torch.cuda.device_count() if accelerator_kind(trainer.accelerator) == "cuda" else 1
    else:
        devices = int(trainer.devices)
    return int(os.environ.get("LOCAL_RANK", 0)), max(1, devices) * trainer.num_nodes


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Strict JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _in_words(means: Mapping[str, float]) -> str:
    shown = [name for name in ("dice", "surface_dice", "hd95_mm", "auroc", "balanced_accuracy", "accuracy") if name in means]
    return ", ".join(f"{name} {means[name]:.3f}" for name in shown)
