"""Training on a GPU: the same bits where that is promised, the same course on every engine, and faults told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cli import main
from pipeline.json_file import read_json
from pipeline.prediction.weights import read_checkpoint
from tests.integration.generated import hippocampus
from tests.processes import Job
from tests.torture.killing import COMMON

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

PATCH = "sampling.patch_size=[16,24,16]"
SMALL = ["experiment=hippocampus_unet", "trainer=gpu", PATCH, "network.width=8", *COMMON, "folds.run=[0]",
         "trainer.workers=2", "tracking.enabled=false", "engine.compile=false", "augmentation=nnunet"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What every training here is given."""
    folder = tmp_path_factory.mktemp("gpu")
    hippocampus(folder / "data")
    return [*SMALL, f"data.root={folder / 'data'}", f"cache={folder / 'cache'}"]


def trained(place: list[str], output: Path, *overrides: str) -> Path:
    job = Job([*place, f"output={output}", *overrides], output.with_suffix(".log"))
    assert job.end() == 0, job.said()
    return output


def digests(output: Path) -> dict[str, str]:
    weights: dict[str, str] = read_json(output / "fold_0" / "fitted.json")["weights"]
    return weights


def losses(output: Path) -> list[float]:
    found: list[float] = pd.read_csv(output / "fold_0" / "metrics.csv")["train_loss"].tolist()
    return found


@pytest.fixture(scope="module")
def strict(place: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(place, tmp_path_factory.mktemp("strict") / "run", "reproducible=strict")


def test_it_learns_and_tells_of_the_gpu(strict: Path) -> None:
    course = losses(strict)
    assert course[-1] < course[0]
    provenance = read_json(strict / "provenance.json")
    assert torch.cuda.get_device_name(0) in json.dumps(provenance)


@pytest.mark.parametrize("workers", [0, 3])
def test_strict_gives_the_same_bits_again(place: list[str], strict: Path, tmp_path: Path, workers: int) -> None:
    again = trained(place, tmp_path / "run", "reproducible=strict", f"trainer.workers={workers}")
    assert digests(again) == digests(strict)
    assert (again / "cases.csv").read_bytes() == (strict / "cases.csv").read_bytes()


def test_a_killed_training_goes_on_to_the_same_bits(place: list[str], strict: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    given = [*place, f"output={output}", "reproducible=strict"]
    job = Job(given, tmp_path / "log")
    job.wait_for(output / "fold_0" / "metrics.csv")
    job.kill()
    job.wait(30)
    again = Job([*given, "resume=auto"], tmp_path / "log")
    assert again.end() == 0, again.said()
    assert digests(output) == digests(strict)


@pytest.mark.parametrize(
    "overrides",
    [
        ("engine.augment=device",),
        ("trainer.workers=0",),
        ("engine.memory_format=channels_last",),
        ("engine.compile=graphs", "engine.memory_format=channels_last"),
        ("engine.compile=true",),
        ("optimizer=muon", "optimizer.lr=0.002"),
    ],
    ids="_".join,
)
def test_every_engine_trains_alike(place: list[str], strict: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    course = losses(trained(place, tmp_path / "run", *overrides))
    if "optimizer=muon" in overrides:
        assert course[-1] < course[0]
    else:
        assert course == pytest.approx(losses(strict), rel=0.05)


def test_auto_measures_and_remembers(place: list[str], tmp_path: Path) -> None:
    engine = ("engine.norm=auto", "engine.memory_format=auto", "engine.compile=auto")
    trained(place, tmp_path / "first", *engine)
    assert "(measured" in (tmp_path / "first.log").read_text()
    trained(place, tmp_path / "second", *engine)
    assert "(remembered" in (tmp_path / "second.log").read_text()


@pytest.mark.parametrize("how", ["checkpoint.every=0.001s", "checkpoint.every=10m", "trainer.accumulate=2"])
def test_a_loss_that_is_not_finite_stops_before_its_weights_are_saved(
    place: list[str], tmp_path: Path, how: str
) -> None:
    wild = ("optimizer=sgd", "optimizer.lr=1e30", "schedule=constant")
    job = Job([*place, f"output={tmp_path / 'run'}", *wild, how], tmp_path / "log")
    assert job.end() == 2, job.said()
    assert "Traceback" not in job.said()
    fold = tmp_path / "run" / "fold_0"
    kept = sorted((fold / "not_finite").iterdir())
    assert len(kept) == (2 if how == "trainer.accumulate=2" else 1)
    for path in kept:
        assert all(case in job.said() for case in np.load(path, allow_pickle=False)["case_id"])
    saved = list((fold / "resume").glob("*.ckpt"))
    for path in saved:
        weights = read_checkpoint(path)["state_dict"].values()
        assert all(bool(weight.isfinite().all()) for weight in weights)
    # A step that is not finite is not saved, and no resume point stands behind it.
    bad = int(kept[0].name.split("_")[1])
    assert all(int(path.stem.split("_")[1]) < bad for path in saved)


def test_steps_that_are_not_finite_can_be_skipped(place: list[str], tmp_path: Path) -> None:
    wild = ("optimizer=sgd", "optimizer.lr=1e30", "schedule=constant", "trainer.ema_decay=null", "on_nan=skip")
    output = trained(place, tmp_path / "run", *wild)
    assert read_json(output / "summary.json")["folds"][0]["skipped_steps"] > 0


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A GPU of which this process may use 1 GiB."""
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / whole)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory")
def test_memory_that_runs_out_is_told_or_gone_without(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["sampling.batch_size=256", "network=nnunet", "network.width=32", "sampling.batches_per_epoch=2",
             "schedule.epochs=1", "trainer.workers=0"]  # fmt: skip
    assert main([*place, *large, f"output={tmp_path / 'stop'}"]) == 2
    assert "out of memory in epoch 1, batch 1" in capsys.readouterr().err
    assert main([*place, *large, f"output={tmp_path / 'shrink'}", "engine.oom=shrink"]) == 0


def test_predictions_of_a_gpu_are_those_of_a_cpu(place: list[str], strict: Path, tmp_path: Path) -> None:
    data = next(value for value in place if value.startswith("data.root=")).removeprefix("data.root=")
    written = tmp_path / "predicted"
    assert main(["predict", f"run={strict}", f"input={data}/imagesTr", f"output={written}"]) == 0
    assert len(list(written.glob("*.nii.gz"))) == 10
