"""How a run is computed: its engine chosen, its machine and code recorded, by whichever process trains first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.config.schema import TrainConfig
from pipeline.json_file import write_json
from pipeline.prediction.trained_run import MODEL_FILE, ModelCard
from pipeline.ranks import rank
from pipeline.tracking.changes import CHANGES_FILE, write_changes
from pipeline.tracking.provenance import provenance, provenance_tags
from pipeline.training.before import PROVENANCE_FILE, Before
from pipeline.training.device import accelerator_kind, choose_precision
from pipeline.training.devices import threads_of
from pipeline.training.engine import require_engine, with_engine
from pipeline.training.engine_trial import Choice
from pipeline.training.experiment import Experiment
from pipeline.training.prepare import Prepared

CONFIG_FILE = "config.yaml"  # resolved, with what the data and the machine determined


def begin(
    prepared: Prepared, before: Before | None, first: Before | None, *, part: Path | None = None
) -> tuple[Experiment, Choice, dict[str, Any]]:
    """The experiment with its engine, how that was chosen, and the provenance of this process.

    ``before``: what this run recorded when it began, None for a new one. ``first``: whose engine to take, that or the
    run that is repeated. ``part``: folder of the fold that this process trains, if only one. Rank zero writes
    provenance.json, config.yaml and model.json, or adds itself to the first.
    """
    opened = prepared.opened
    require_engine(opened.settings)
    with opened.console.status("engine: measuring"):
        experiment, engine = with_engine(prepared.experiment, opened.cache, first.engine if first is not None else None)
    found = found_here(opened.settings) | {"data_hash": opened.checked.data_hash, "engine": engine.as_json()}
    if rank() == 0:
        output = opened.output
        if part is not None:
            part.mkdir(exist_ok=True)
            write_json(part / PROVENANCE_FILE, found)
        if before is None or before.found is None:
            write_changes(project_folder(), output / CHANGES_FILE)
            write_json(output / PROVENANCE_FILE, found)
        elif part is None:
            before.add(before.found, found)
        else:
            before.warn(before.found, found)
        (output / CONFIG_FILE).write_text(yaml.safe_dump(experiment.resolved(), sort_keys=False), encoding="utf-8")
        write_json(output / MODEL_FILE, model_card(experiment).as_json())
    return experiment, engine, found


def found_here(settings: TrainConfig) -> dict[str, Any]:
    """The provenance of a training with these settings in this process."""
    found = provenance(project_folder())
    found["cpu"]["capability"] = torch.backends.cpu.get_cpu_capability()
    return found | {"threads": threads_of(settings)}


def tags_of(found: Mapping[str, Any], task: str) -> dict[str, str]:
    """What MLflow shows of the provenance of a training."""
    return {**provenance_tags(dict(found)), "data_hash": found["data_hash"], "task": task}


def model_card(experiment: Experiment) -> ModelCard:
    """What prediction needs to know of the networks of a run."""
    dataset, settings = experiment.dataset, experiment.settings
    precision, accelerator = settings.trainer.precision, settings.trainer.accelerator
    return ModelCard(
        task=settings.task,
        class_names=dataset.output_classes,
        label_values=dataset.labels.values if dataset.labels is not None else None,
        regions=dataset.labels.regions if dataset.labels is not None else None,
        modalities=dataset.modalities,
        incomplete=experiment.incomplete,
        modality_dropout=settings.sampling.modality_dropout,
        checkpoint=settings.evaluation.checkpoint,
        bf16=choose_precision(precision, accelerator_kind(accelerator)) == "bf16-mixed",
        spatial_dims=dataset.spatial_dims,
        channels=experiment.channels,
    )


def project_folder() -> Path | None:
    """The checkout this code runs from, None when it is installed."""
    folder = Path(__file__).resolve().parents[3]
    return folder if (folder / "pyproject.toml").is_file() else None
