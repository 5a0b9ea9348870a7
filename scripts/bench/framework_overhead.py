"""What Hydra, Lightning, MLflow and our code cost: an epoch of the pipeline against a bare PyTorch loop.

    python scripts/bench/framework_overhead.py [--rounds 5] [--epochs 4]

Both sides train the same network with the same loss, optimizer, weight averaging, bf16, gradient clipping, batches and
augmentation on generated thorax CTs (`experiment=lung_unet`), in turn, in one process. The pipeline's side is its own
training of a fold, progress line, metrics file and MLflow records (a real sqlite store) included; validation is left
out of both, as a bare loop has none: the first epoch of each round, and the last with its validation, are not counted.
Prints seconds per epoch of both
sides (median, lowest, highest) and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.data.folds import make_folds
from pipeline.data.integrity import check_dataset
from pipeline.data.loading import TrainingPatches, training_loader
from pipeline.data.readers import open_dataset
from pipeline.tracking import Tracker
from pipeline.training.augmentation import batch_augmentation, sample_augmentation
from pipeline.training.ema import update
from pipeline.training.experiment import Experiment, make_ready
from pipeline.training.fold_run import FoldRun
from pipeline.training.rebalancing import patch_sampling


def experiment(folder: Path, epochs: int) -> Experiment:
    """lung_unet on ten generated patients, `epochs` epochs, without validation."""
    overrides = ["experiment=lung_unet", "schedule.budget=null", f"schedule.epochs={epochs}"]
    overrides += ["trainer.validate_every=1000", "data.phantom.patients=10"]
    composed = validate(compose("train", overrides), TrainConfig)
    settings = composed.model
    assert isinstance(settings, TrainConfig)
    dataset = open_dataset(settings.data.model_dump(), task_kind=settings.task, cache=folder, workers=2)
    checked = check_dataset(dataset, cache=folder)
    return make_ready(
        settings,
        composed.tree,
        dataset,
        make_folds(dataset, count=5, seed=0),
        {case_id: record.sha256 for case_id, record in checked.records.items()},
        output=folder / "run",
        cache=folder,
        console=Console(quiet=True),
        trusted=(),
        workers=2,
        report=lambda done, total: None,
    )


def bare(run: FoldRun, epochs: int) -> list[float]:
    """Seconds of each epoch of a plain loop."""
    ready = run.experiment
    transforms = run.config["transforms"]
    augmentation = sample_augmentation(transforms, ready.trusted)
    of_batch = batch_augmentation(transforms, ready.trusted)
    sampling = patch_sampling(ready, processes=1)
    patches = TrainingPatches(
        run.cases, ready.store, sampling, augmentation, targets=None, seed=0, batch_augmentation=of_batch
    )
    batches = run._batches()
    loader = training_loader(patches, batches, workers=0)
    network, loss = run._build("network"), run._build("loss", "function")
    optimizer = run._build("optimizer")(network.parameters())
    averaged, updates = deepcopy(network), 0
    seconds = []
    for epoch in range(epochs):
        begun = time.perf_counter()
        batches.set_epoch(epoch)
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bf16-mixed"):
                logits = network(batch["image"])
            value = loss(logits.float(), batch["label"])
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimizer.step()
            update(averaged, network, updates, 0.99)
            updates += 1
        seconds.append(time.perf_counter() - begun)
    return seconds[1:-1]


def pipeline(run: FoldRun, tracker: Tracker, round_: int) -> list[float]:
    """Seconds of each epoch of the pipeline's training of the fold."""
    key = f"fold_{round_}"
    tracker.start_run(key, key, parent=None, tags={}, params={})
    run.train(lambda metrics, epoch: tracker.log_metrics(key, metrics, epoch))
    tracker.end_run(key, "FINISHED")
    ends = pd.read_csv(run.folder / "metrics.csv")["seconds"].tolist()
    return [after - before for before, after in pairwise(ends[:-1])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready = experiment(folder, given.epochs)
        (folder / "run").mkdir()
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        ours: list[float] = []
        plain: list[float] = []
        with Tracker(folder / "run", uri=uri, experiment="bench", flush_timeout_s=60) as tracker:
            for round_ in range(given.rounds):
                run = FoldRun(ready, ready.folds[0])
                plain += bare(run, given.epochs)
                ours += pipeline(run, tracker, round_)
    for title, values in (("bare loop", plain), ("pipeline", ours)):
        print(f"{title:10} {statistics.median(values):.2f} s an epoch ({min(values):.2f} to {max(values):.2f})")
    print(f"ratio      {statistics.median(ours) / statistics.median(plain):.3f}")


if __name__ == "__main__":
    main()
