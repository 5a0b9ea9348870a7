"""From a checked data set to an experiment: folds, preprocessed cases, and what the run's folder says of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pipeline.config.schema import TrainConfig
from pipeline.data.case import Dataset
from pipeline.data.fingerprint import FINGERPRINT_FILE, FingerprintSettings, fingerprint_dataset, write_fingerprint
from pipeline.data.folds import Fold, folds_of, write_folds
from pipeline.data.integrity import CheckResult
from pipeline.json_file import write_json
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.progress_bar import progress_bar
from pipeline.training.before import Before, paces_of
from pipeline.training.device import accelerator_kind, use_reproducible
from pipeline.training.devices import device_batch, threads_of
from pipeline.training.experiment import Experiment, folds_to_run, make_ready, require_dimensions
from pipeline.training.interrupt import Interrupt
from pipeline.training.manifest import Manifest, manifest_of
from pipeline.training.rebalancing import require_sampling
from pipeline.training.shards import require_shards


@dataclass(frozen=True)
class Opened:
    """A configuration and the data set it names, read and checked; where its run is to be."""

    settings: TrainConfig
    tree: Mapping[str, Any]
    dataset: Dataset
    checked: CheckResult
    output: Path
    cache: Path
    console: Console
    trusted: tuple[str, ...]
    interrupt: Interrupt

    @property
    def digests(self) -> dict[str, Mapping[str, str]]:
        """sha256 of the files of each case."""
        return {case_id: record.sha256 for case_id, record in self.checked.records.items()}

    def folds(self) -> tuple[Fold, ...]:
        """The folds; raises UserError also for one in ``folds.run`` that is not there."""
        folds = folds_of(
            self.dataset,
            self.settings.folds.model_dump(),
            foreground=self.checked.foreground(self.dataset),
            together=self.checked.duplicates,
        )
        folds_to_run(self.settings, folds)
        return folds


@dataclass(frozen=True)
class Prepared:
    """An experiment whose engine is still to be chosen, and the files it reads."""

    opened: Opened
    experiment: Experiment
    manifest: Manifest

    def record(self) -> None:
        """Write what the run's folder says of the data."""
        opened, output = self.opened, self.opened.output
        self.manifest.write(output)
        write_folds(output / "folds.json", self.experiment.folds, opened.dataset, opened.settings.folds.seed)
        write_json(output / "check.json", opened.checked.to_json())
        with progress_bar(opened.console, "fingerprint") as report:
            fingerprint = fingerprint_dataset(
                opened.dataset,
                opened.digests,
                FingerprintSettings.of(opened.settings.fingerprint.model_dump()),
                data_hash=opened.checked.data_hash,
                workers=threads_of(opened.settings),
                cache=opened.cache,
                report=report,
            )
        write_fingerprint(output / FINGERPRINT_FILE, fingerprint)


def prepare(opened: Opened, *, first: Before | None, repeated: Path | None = None) -> Prepared:
    """Draw the folds and preprocess every case.

    ``first``: what is gone on with, or done again; raises UserError where its data or folds are others.
    ``repeated``: folder of a run to train as again, on its clock.
    """
    settings, console = opened.settings, opened.console
    folds = opened.folds()
    manifest = manifest_of(opened.dataset, folds, opened.checked)
    if first is not None:
        first.require_same(manifest)
    require_dimensions(settings, opened.dataset)
    require_sampling(settings, opened.dataset)
    with progress_bar(console, "preprocessing") as report:
        experiment = make_ready(
            settings,
            opened.tree,
            opened.dataset,
            folds,
            opened.digests,
            output=opened.output,
            cache=opened.cache,
            console=console,
            trusted=opened.trusted,
            workers=threads_of(settings),
            interrupt=opened.interrupt,
            replay=paces_of(repeated) if repeated is not None else {},
            report=report,
        )
    return Prepared(opened, experiment, manifest)


def use_device(settings: TrainConfig) -> None:
    """Set this process up for training: threads, deterministic algorithms, memory; raises UserError."""
    require_shards(settings)
    device_batch(settings)  # one that cannot be divided is told of before anything is computed
    device = accelerator_kind(settings.trainer.accelerator)
    torch.set_num_threads(threads_of(settings))
    use_reproducible(settings.reproducible, device)
    if settings.engine.keep_memory and device == "cpu":
        keep_freed_memory()
