"""Trains in a process of its own, kills it at random moments, goes on, and looks whether anything shows in the end.

python -m tests.torture.killing [--kills 50] [--seed 0] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.generated import hippocampus, shenzhen
from tests.processes import Job

RESUMED = "resume=auto"


@dataclass(frozen=True)
class Experiment:
    """A small training: how to make its data and what to type."""

    name: str
    make: Callable[[Path], None]
    overrides: tuple[str, ...]


COMMON = (
    "folds.count=2",
    "evaluation.figures=false",
    "evaluation.resamples=50",
    "schedule.budget=null",
    "schedule.epochs=5",
    "sampling.batches_per_epoch=6",
    "sampling.batch_size=2",
    "trainer.validate_every=2",
    "trainer.validate_cases=2",
    "trainer.threads=1",
    "checkpoint.every=0.1s",
    "checkpoint.share=1",
    "engine.norm=stock",
    "engine.memory_format=contiguous",
    "trainer.precision=32",
    "fingerprint.sample_voxels=100",
)
THREE_D = ("experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "network.width=4", *COMMON)
TWO_D = ("experiment=tb_xray_cnn", "transforms.size=[32,32]", "network.width=4", *COMMON)
EXPERIMENTS = (
    Experiment("segmentation", hippocampus, (*THREE_D, "augmentation=nnunet")),
    Experiment(
        "segmentation, 2 workers, Muon",
        hippocampus,
        (*THREE_D, "trainer.workers=2", "optimizer=muon", "augmentation=light"),
    ),
    Experiment(
        "segmentation, accumulating, early stopping",
        hippocampus,
        (*THREE_D, "trainer.accumulate=2", "trainer.early_stopping=1", "trainer.ema_decay=null", "optimizer=sgd"),
    ),
    Experiment("classification", shenzhen, TWO_D),
    Experiment("classification, 2 workers", shenzhen, (*TWO_D, "trainer.workers=2")),
)


def saving(output: Path) -> bool:
    """Whether a file is being written under a temporary name just now."""
    return any(output.glob("fold_*/*/.*")) or any(output.glob(".*partial")) or any(output.glob("fold_*/.*partial"))


def torture(experiment: Experiment, folder: Path, kills: int, rng: random.Random) -> Counter[str]:
    """Train undisturbed, and again while being killed, ``kills`` times in all; where that was. Raises AssertionError.

    A run that came to its end is compared with the undisturbed one, and the next begins.
    """
    data, log, where = folder / "data", folder / "log.txt", Counter[str]()
    folder.mkdir(parents=True)
    experiment.make(data)
    given = [*experiment.overrides, f"data.root={data}", f"cache={folder / 'cache'}"]

    def command(name: str) -> list[str]:
        return [*given, f"output={folder / name}", f"tracking.uri=sqlite:///{folder / name}.db", RESUMED]

    assert Job(command("first"), log).end() == 0, log.read_text()[-3000:]
    begun = time.monotonic()
    assert Job(command("quiet"), log).end() == 0, log.read_text()[-3000:]  # its cache is warm, as those of the others
    life = time.monotonic() - begun
    compare(folder / "first", folder / "quiet")
    runs = 0
    while sum(where.values()) < kills:
        runs += 1
        output = folder / f"killed_{runs}"
        while not kill_once(command(output.name), output, log, life, rng, where, go_on=sum(where.values()) >= kills):
            pass
        compare(folder / "quiet", output)
        compare_tracking(folder / "quiet.db", output.with_suffix(".db"))
    return where


def kill_once(
    command: Sequence[str], output: Path, log: Path, life: float, rng: random.Random, where: Counter[str], go_on: bool
) -> bool:
    """Start and kill at a random moment, or (every second time) when next something is written; True if it ended."""
    job = Job(command, log)
    if go_on:
        assert job.end() == 0, log.read_text()[-3000:]
        return True
    status = job.wait(rng.uniform(0.0, life))
    if status is None and rng.random() < 0.5:
        deadline = time.monotonic() + life
        while status is None and time.monotonic() < deadline and not saving(output):
            status = job.wait(0.0005)
    if status is not None:
        assert status == 0, log.read_text()[-3000:]
        return True
    where[place_of(output)] += 1
    job.kill()
    return False


def place_of(output: Path) -> str:
    """Where in its life a run is, from its files."""
    if saving(output):
        return "while writing"
    if not (output / "provenance.json").exists():
        return "before training"
    folds = sorted(output.glob("fold_*"))
    if folds and (folds[-1] / "finished.json").exists():
        return "between folds or at the end"
    if folds and (folds[-1] / "fitted.json").exists():
        return "while predicting"
    return "while training"


def compare(quiet: Path, killed: Path) -> None:
    """Raise AssertionError where two runs differ in weights, cases, course or summary."""
    from pipeline.evaluation.summary import comparable
    from pipeline.prediction.weights import weights_digests

    for fold in sorted(quiet.glob("fold_*")):
        other = killed / fold.name
        assert weights_digests(fold / "checkpoints") == weights_digests(other / "checkpoints"), fold
        assert course(fold / "metrics.csv") == course(other / "metrics.csv"), fold
        assert (fold / "pace.npy").read_bytes() == (other / "pace.npy").read_bytes(), fold
    for name in ("cases.csv", "folds.json", "manifest.csv"):
        assert (quiet / name).read_bytes() == (killed / name).read_bytes(), name
    summaries = [comparable(json.loads((run / "summary.json").read_text())) for run in (quiet, killed)]
    assert summaries[0] == summaries[1]


def course(path: Path) -> list[dict[str, str]]:
    """metrics.csv without the clock."""
    with path.open(encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def compare_tracking(quiet: Path, killed: Path) -> None:
    """Raise AssertionError where MLflow holds other runs, points or files of two runs, or anything twice."""
    expected, found = recorded(quiet), recorded(killed)
    assert found.keys() == expected.keys()
    for name in expected:
        for what, first, second in zip(("status", "points", "files"), expected[name], found[name], strict=True):
            if first != second:
                lost, more = Counter(first) - Counter(second), Counter(second) - Counter(first)
                raise AssertionError(f"{killed}, run {name}, {what}: lost {dict(lost)}, more {dict(more)}")


def recorded(database: Path) -> dict[str, Any]:
    """Status, points and files of every run, by name; points of the clock without their value."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    found = {}
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        name = run.info.run_name if "mlflow.parentRunId" in run.data.tags else "parent"
        assert name not in found, f"{name} is there twice"
        points = []
        for metric in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, metric):
                points.append((metric, point.step, "" if metric == "seconds" else repr(point.value)))
        folders = [None, "checkpoints", "figures"]
        files = [file.path for folder in folders for file in client.list_artifacts(run.info.run_id, folder)]
        found[name] = (run.info.status, sorted(points), sorted(files))
    return found


def main() -> None:
    """Print where each experiment was killed; exit status 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[experiment.name for experiment in EXPERIMENTS])
    options = parser.parse_args()
    for experiment in EXPERIMENTS:
        if options.only and experiment.name not in options.only:
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            where = torture(experiment, Path(folder, "run"), options.kills, random.Random(options.seed))
        places = ", ".join(f"{count} {place}" for place, count in sorted(where.items()))
        took = time.monotonic() - begun
        print(f"{experiment.name}: identical after {sum(where.values())} kills in {took:.0f} s ({places})", flush=True)


if __name__ == "__main__":
    main()
