"""One fold of an experiment: its data, its task, its training, its out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.collective import gathered, processes
from pipeline.config.build import build
from pipeline.data.case import Case
from pipeline.data.folds import Fold
from pipeline.data.loading import Batch, TrainingPatches, WholeCases, training_loader, validation_loader
from pipeline.data.modalities import channel_means
from pipeline.data.order import EpochBatches
from pipeline.errors import UserError
from pipeline.inference.decision import Decision
from pipeline.networks.engine import Engine, use_engine
from pipeline.networks.modalities import CompleteModalities
from pipeline.networks.shared_batch_norm import share_batch_norm
from pipeline.prediction.cases import classify_cases, segment_cases
from pipeline.prediction.weights import network_weights, read_checkpoint
from pipeline.randomness import draw_seed, generator
from pipeline.tasks.base import Task
from pipeline.tasks.classification import ClassificationTask
from pipeline.tasks.parts import StepInParts
from pipeline.tasks.segmentation import SegmentationTask
from pipeline.training.augmentation import batch_augmentation, sample_augmentation
from pipeline.training.device import accelerator_kind, choose_precision
from pipeline.training.devices import augments_on_host, device_batch, loading_processes, processes_of
from pipeline.training.duration import seconds_of
from pipeline.training.experiment import Experiment
from pipeline.training.finished import is_finished
from pipeline.training.fold import FittedFold, LoopSettings, fit_fold
from pipeline.training.pace import Pace
from pipeline.training.progress_file import FoldProgress
from pipeline.training.rebalancing import patch_sampling, rebalance
from pipeline.training.shards import is_sharded
from pipeline.training.tracked import fold_key


class FoldRun:
    """Everything that happens to one fold; ``config`` is the resolved configuration with the fold's class weights."""

    def __init__(self, experiment: Experiment, fold: Fold) -> None:
        self.experiment = experiment
        self.settings = experiment.settings
        self.fold = fold
        self.folder = experiment.output / fold_key(fold.index)
        self.cases = experiment.cases(fold.train)
        segmentation = self.settings.task == "segmentation"
        # Without its target a case (data.missing.target=impute) can be trained on and not be evaluated.
        self.held_out = [case for case in experiment.cases(fold.validation) if segmentation or case.target is not None]
        weights = experiment.class_weights(self.cases)
        self.config = experiment.resolved(weights)
        self.rebalancing = rebalance(experiment, self.cases, weights)
        self.processes = processes_of(self.settings.trainer)
        self.device = torch.device(accelerator_kind(self.settings.trainer.accelerator))
        self.precision = choose_precision(self.settings.trainer.precision, self.device.type)
        self.predictor = experiment.predictor()
        labels = experiment.dataset.labels
        painted = labels.painted if labels is not None and labels.regions is not None else None
        self.decision = Decision(painted, self.settings.inference.region_threshold)

    def train(self, send: Callable[[Mapping[str, float], int], None]) -> FittedFold:
        """Fit, unless that was done before; ``send(metrics, epoch)`` receives each epoch's metrics."""
        done = FittedFold.read(self.folder)
        if done is not None:
            return done
        experiment, settings = self.experiment, self.settings
        trainer, schedule = settings.trainer, settings.schedule
        targets = experiment.target_indices(self.cases)
        transforms, task = self.config["transforms"], self._task()
        augmentation, workers = batch_augmentation(transforms, experiment.trusted), loading_processes(settings)
        on_host = augments_on_host(settings)
        if not on_host:
            task.augmentation = augmentation
        if settings.engine.oom == "shrink":
            if self.processes.count > 1:
                raise UserError(
                    "engine.oom=shrink works in one process; here are several", "set a smaller sampling.batch_size"
                )
            task.in_parts = StepInParts()
        patches = TrainingPatches(
            self.cases,
            experiment.store,
            patch_sampling(experiment, processes=self.processes.count),
            sample_augmentation(transforms, experiment.trusted),
            targets=targets,
            seed=settings.seed,
            annotated=experiment.annotated(self.cases),
            modality_dropout=settings.sampling.modality_dropout,
            batch_augmentation=augmentation if on_host else None,
        )
        batches = self._batches()
        subset = self._validation_subset(self.held_out)
        whole = WholeCases(
            subset,
            experiment.store,
            targets=experiment.target_indices(subset),
            annotated=experiment.annotated(subset),
        )
        pace = Pace(
            self._build("schedule", "shape"),
            # The batches that are left at the end of an epoch are a step of their own.
            total_steps=None if schedule.epochs is None else schedule.epochs * -(-len(batches) // trainer.accumulate),
            budget=None if schedule.budget is None else seconds_of(schedule.budget),
            most_steps=trainer.max_steps,
            replay=experiment.replay.get(self.fold.index),
        )
        return fit_fold(
            task,
            training_loader(patches, batches, workers=workers),
            self._validation_loader(whole),
            pace,
            LoopSettings(
                accelerator=trainer.accelerator,
                devices=self.processes.devices,
                num_nodes=self.processes.nodes,
                strategy=trainer.strategy,
                shard_parameters=trainer.shard_parameters,
                precision=self.precision,
                max_seconds=None if trainer.max_time is None else seconds_of(trainer.max_time),
                gradient_clip=trainer.gradient_clip,
                accumulate=trainer.accumulate,
                ema_decay=trainer.ema_decay,
                validate_every=trainer.validate_every,
                early_stopping=trainer.early_stopping,
                save_every=seconds_of(settings.checkpoint.every),
                save_share=settings.checkpoint.share,
                on_full=settings.checkpoint.on_full,
                on_nan=settings.on_nan,
            ),
            cases=[case.case_id for case in self.cases],
            folder=self.folder,
            title=f"fold {self.fold.index}",
            console=experiment.console,
            send=send,
            interrupt=experiment.interrupt,
        )

    def assist(self) -> None:
        """What a process that is not the first one does for a fold: train with it, and predict its share."""
        if is_finished(self.folder):
            return
        self.train(lambda metrics, epoch: None)
        if processes() > 1:  # a fold that was trained before is predicted by the first process alone
            self.predict()

    def predict(self) -> pd.DataFrame:
        """Out-of-fold predictions with the weights as they stand in the checkpoint; all processes share the cases."""
        shares = gathered(self._predict(self.held_out[self.processes.rank :: processes()]))
        table = pd.concat([share for share in shares if len(share)], ignore_index=True)
        place = {case.case_id: index for index, case in enumerate(self.held_out)}
        return table.sort_values("case_id", key=lambda ids: ids.map(place), kind="stable", ignore_index=True)

    def _predict(self, cases: list[Case]) -> pd.DataFrame:
        experiment, settings = self.experiment, self.settings
        network = self._network(training=False)
        checkpoint = self.folder / "checkpoints" / f"{settings.evaluation.checkpoint}.ckpt"
        network.load_state_dict(network_weights(read_checkpoint(checkpoint)))
        network.to(self.device).eval()
        bf16 = self.precision == "bf16-mixed"
        if self.processes.rank == 0:
            FoldProgress(1.0, None, f"predicting {len(self.held_out)} cases").write(self.folder)
        with experiment.console.status(f"fold {self.fold.index}: predicting {len(cases)} cases"):
            if settings.task == "classification":
                return classify_cases(
                    [network],
                    self.predictor,
                    cases,
                    experiment.store.__getitem__,
                    experiment.dataset.classes,
                    fold=self.fold.index,
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
                self.decision,
                modalities=experiment.dataset.modalities,
                fold=self.fold.index,
                tolerance_mm=settings.evaluation.tolerance_mm,
                folder=self.folder / "predictions",
                device=self.device,
                bf16=bf16,
            )

    def _batches(self) -> EpochBatches:
        sampling, processes = self.settings.sampling, self.processes
        batch = device_batch(self.settings)
        together = batch * processes.count
        return EpochBatches(
            self.rebalancing.order,
            batches=sampling.batches_per_epoch or max(1, round(len(self.cases) / together)),
            batch_size=batch,
            process=processes.rank,
            processes=processes.count,
        )

    def _validation_loader(self, cases: WholeCases) -> DataLoader[Batch]:
        """A share of the cases for each process; all of them where a network in shards runs in step on all devices."""
        batch = 1 if self.settings.task == "segmentation" else device_batch(self.settings)
        if is_sharded(self.settings.trainer.strategy):
            return validation_loader(cases, batch_size=batch)
        here = self.processes
        return validation_loader(cases, batch_size=batch, process=here.rank, processes=here.count)

    def _validation_subset(self, cases: list[Case]) -> list[Case]:
        """A fixed part of the held-out cases: classification always uses all, they are cheap."""
        most = self.settings.trainer.validate_cases
        if self.settings.task == "classification" or most is None or most >= len(cases):
            return cases
        chosen = generator(self.settings.seed, "validation").permutation(len(cases))[:most]
        return [cases[index] for index in sorted(chosen.tolist())]

    def _task(self) -> Task:
        torch.manual_seed(draw_seed(self.settings.seed, "weights", self.fold.index))
        network = self._network(training=True)
        loss, optimizer = self._build("loss", "function"), self._build("optimizer")
        dataset, seed = self.experiment.dataset, self.settings.seed
        if self.settings.task == "classification":
            return ClassificationTask(network, loss, optimizer, class_names=dataset.classes, seed=seed)
        assert dataset.labels is not None
        return SegmentationTask(
            network,
            loss,
            optimizer,
            predictor=self.experiment.predictor(flips=self.settings.trainer.validate_flips),
            decision=self.decision,
            labels=dataset.labels,
            seed=seed,
        )

    def _network(self, *, training: bool) -> nn.Module:
        """The network on its engine; where cases may lack modalities, with what stands in for them."""
        network = use_engine(self._build("network"), Engine.recorded(self.config["engine"]), training=training)
        if training and self.processes.count > 1:
            network = share_batch_norm(network, self.device)
        if not self.experiment.incomplete:
            return network
        fill = [0.0] * self.experiment.channels
        if self.settings.data.missing.modality == "mean":
            fill = channel_means([self.experiment.store[case] for case in self.cases])
        return CompleteModalities(network, fill)

    def _build(self, *keys: str) -> Any:
        node: Any = self.config
        for key in keys:
            node = node[key]
        return build(node, ".".join(keys), self.experiment.trusted)
