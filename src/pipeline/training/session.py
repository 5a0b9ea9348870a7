"""A whole training command: from an opened data set to the printed table."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pipeline.config.schema import TrainConfig
from pipeline.config.yaml_files import shown
from pipeline.data.case import Dataset
from pipeline.data.fingerprint import FINGERPRINT_FILE, FingerprintSettings, fingerprint_dataset, write_fingerprint
from pipeline.data.folds import folds_of, write_folds
from pipeline.data.integrity import CheckResult
from pipeline.evaluation.report import print_summary
from pipeline.json_file import write_json
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.progress_bar import progress_bar
from pipeline.ranks import rank
from pipeline.tracking.changes import CHANGES_FILE, write_changes
from pipeline.tracking.provenance import provenance, provenance_tags
from pipeline.tracking.tracker import Status, Tracker
from pipeline.tracking.uri import open_page_command, store_uri
from pipeline.training.before import PROVENANCE_FILE, Before, paces_of
from pipeline.training.crossval import CrossValidation
from pipeline.training.device import accelerator_kind, chosen_threads, use_reproducible
from pipeline.training.devices import device_batch, processes_of
from pipeline.training.duration import seconds_of
from pipeline.training.engine import require_engine, with_engine
from pipeline.training.experiment import folds_to_run, make_ready, require_dimensions
from pipeline.training.fold_run import FoldRun
from pipeline.training.interrupt import Interrupt, Stopped
from pipeline.training.manifest import manifest_of
from pipeline.training.rebalancing import rebalanced_twice, require_sampling
from pipeline.training.shards import require_shards


def train(
    settings: TrainConfig,
    tree: Mapping[str, Any],
    dataset: Dataset,
    checked: CheckResult,
    *,
    output: Path,
    cache: Path,
    console: Console,
    trusted: tuple[str, ...],
    interrupt: Interrupt,
    resumed: bool = False,
    repeated: Path | None = None,
) -> int:
    """Prepare, cross-validate, record and print a checked data set; the exit status.

    ``resumed``: ``output`` holds this run, interrupted. ``repeated``: folder of a run to train as again, on its clock
    and with its engine.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    trainer = settings.trainer
    threads = threads_of(settings)
    torch.set_num_threads(threads)
    device = accelerator_kind(trainer.accelerator)
    use_reproducible(settings.reproducible, device)
    require_engine(settings.engine, device)
    require_shards(settings)
    device_batch(settings)  # one that cannot be divided is told of before anything is computed
    if settings.engine.keep_memory and device == "cpu":
        keep_freed_memory()
    split = settings.folds
    folds = folds_of(dataset, split.model_dump(), foreground=checked.foreground(dataset), together=checked.duplicates)
    folds_to_run(settings, folds)  # a fold that is not there is told of before anything is preprocessed
    manifest = manifest_of(dataset, folds, checked)
    before = Before.read(output) if resumed else None
    first = before if repeated is None else Before.read(repeated)  # what is gone on with, or done again
    if first is not None:
        first.require_same(manifest)
    require_dimensions(settings, dataset)
    require_sampling(settings, dataset)
    with progress_bar(console, "preprocessing") as report:
        experiment = make_ready(
            settings,
            tree,
            dataset,
            folds,
            {case_id: record.sha256 for case_id, record in checked.records.items()},
            output=output,
            cache=cache,
            console=console,
            trusted=trusted,
            workers=threads,
            interrupt=interrupt,
            replay=paces_of(repeated) if repeated is not None else {},
            report=report,
        )
    wanted = experiment.run_folds
    with console.status("engine: measuring"):
        experiment, engine = with_engine(experiment, cache, first.engine if first is not None else None)
    if rank() > 0:
        for fold in wanted:  # the first process predicts and records; this one only trains with it
            FoldRun(experiment, fold).assist()
        return 0
    manifest.write(output)
    write_folds(output / "folds.json", folds, dataset, split.seed)
    write_json(output / "check.json", checked.to_json())
    with progress_bar(console, "fingerprint") as report:
        fingerprint = fingerprint_dataset(
            dataset,
            {case_id: record.sha256 for case_id, record in checked.records.items()},
            FingerprintSettings.of(settings.fingerprint.model_dump()),
            data_hash=checked.data_hash,
            workers=threads,
            cache=cache,
            report=report,
        )
    write_fingerprint(output / FINGERPRINT_FILE, fingerprint)
    found = found_here(settings) | {"data_hash": checked.data_hash}
    found["engine"] = engine.as_json()
    if before is None or before.found is None:
        write_changes(project_folder(), output / CHANGES_FILE)
        write_json(output / PROVENANCE_FILE, found)
    else:
        before.add(before.found, found)
    console.print(
        f"{settings.name}: {len(dataset.cases)} cases of {len(dataset.patients)} patients, "
        f"training {len(wanted)} of {len(folds)} folds, patch {'x'.join(map(str, experiment.patch_size))}",
        highlight=False,
    )
    for line in (rebalanced_twice(settings), experiment.mirror_line()):
        if line is not None:
            console.print(line, highlight=False, soft_wrap=True)
    console.print(engine.in_words(), highlight=False, soft_wrap=True)
    tags = {**provenance_tags(found), "data_hash": checked.data_hash, "task": settings.task}
    tracker = open_tracker(settings, output)
    status: Status = "FAILED"
    try:
        summary = CrossValidation(experiment, tracker).run(tags)
        status = "FINISHED"
    except Stopped:
        status = "KILLED"
        console.print(
            f"\nStopped. To go on: python -m pipeline train resume={shlex.quote(shown(output))}",
            highlight=False,
            soft_wrap=True,
        )
        raise
    finally:
        if tracker is not None:
            tracker.close(status)
    print_summary(summary, console)
    console.print(f"Results: {output}", highlight=False, soft_wrap=True)
    if tracker is not None:
        console.print(f"MLflow:  {open_page_command(tracker.uri)}", highlight=False, soft_wrap=True)
    return 0


def found_here(settings: TrainConfig) -> dict[str, Any]:
    """The provenance of a training with these settings in this process."""
    found = provenance(project_folder())
    found["cpu"]["capability"] = torch.backends.cpu.get_cpu_capability()
    return found | {"threads": threads_of(settings)}


def threads_of(settings: TrainConfig) -> int:
    """The CPU threads of a training with these settings."""
    return chosen_threads(settings.trainer.threads, processes_of(settings.trainer).devices)


def open_tracker(settings: TrainConfig, output: Path) -> Tracker | None:
    """The recorder of this run, None when tracking is off."""
    tracking = settings.tracking
    if not tracking.enabled:
        return None
    return Tracker(
        output,
        uri=store_uri(tracking.uri, Path("outputs", "mlflow.db").absolute()),
        experiment=tracking.experiment or settings.name,
        flush_timeout_s=seconds_of(tracking.flush_timeout),
    )


def project_folder() -> Path | None:
    """The checkout this code runs from, None when it is installed."""
    folder = Path(__file__).resolve().parents[3]
    return folder if (folder / "pyproject.toml").is_file() else None
