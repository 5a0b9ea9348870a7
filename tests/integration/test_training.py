"""The training itself: the same bits from the same seed, the clock, Ctrl-C, and what checkpoints survive."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient

from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.prediction.weights import read_checkpoint
from pipeline.training.checkpoint import AtomicCheckpointIO
from tests.integration.generated import hippocampus

SHORT = ["experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "sampling.batch_size=2", "folds.count=3",
         "folds.run=[0]", "evaluation.figures=false", "sampling.batches_per_epoch=3", "trainer.validate_every=1",
         "trainer.validate_cases=2"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hippocampus")
    hippocampus(folder / "data")
    return folder


def train(data: Path, output: Path, *overrides: str) -> dict[str, Any]:
    """Weights of the fold's last checkpoint."""
    given = [f"data.root={data / 'data'}", f"cache={data / 'cache'}", "tracking.enabled=false", "schedule.budget=null"]
    assert main([*SHORT, *given, "schedule.epochs=2", f"output={output}", *overrides]) == 0
    return read_checkpoint(output / "fold_0" / "checkpoints" / "last.ckpt")


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    a, b = first["state_dict"], second["state_dict"]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_seed_decides_everything(data: Path, tmp_path: Path) -> None:
    first = train(data, tmp_path / "a")
    assert same(first, train(data, tmp_path / "b"))
    assert not same(first, train(data, tmp_path / "c", "seed=1"))
    cases = [(tmp_path / run / "cases.csv").read_bytes() for run in "ab"]
    assert cases[0] == cases[1]
    metrics = [json.loads((tmp_path / run / "summary.json").read_text())["metrics"] for run in "ab"]
    assert metrics[0] == metrics[1]


def test_all_epochs_are_trained_where_batches_are_accumulated(data: Path, tmp_path: Path) -> None:
    """Three batches by two: two steps an epoch, the second of the batch that is left."""
    train(data, tmp_path, "trainer.accumulate=2", "schedule.epochs=3")
    fitted = json.loads((tmp_path / "fold_0" / "fitted.json").read_text())
    assert (fitted["steps"], fitted["epochs"]) == (6, 3)


def test_augmentation_of_the_batch_follows_from_the_seed(data: Path, tmp_path: Path) -> None:
    first = train(data, tmp_path / "a", "augmentation=nnunet")
    assert same(first, train(data, tmp_path / "b", "augmentation=nnunet"))
    assert same(first, train(data, tmp_path / "where_loaded", "augmentation=nnunet", "engine.augment=host"))
    assert not same(first, train(data, tmp_path / "c", "augmentation=none"))


def test_auto_does_not_mirror_from_left_to_right(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "data", tmp_path / "data")
    index = tmp_path / "data" / "dataset.json"
    named = index.read_text().replace("Anterior", "hippocampus_L").replace("Posterior", "hippocampus_R")
    index.write_text(named)
    given = [f"data.root={tmp_path / 'data'}", "augmentation=nnunet", "inference.mirror_axes=auto"]
    train(data, tmp_path / "run", *given, "schedule.epochs=1", "sampling.batches_per_epoch=1")
    said = "mirroring: not along axis 0, left to right: hippocampus_L and hippocampus_R are a pair"
    assert said in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["inference"]["mirror_axes"] == [1, 2]
    sides = {"axes": [0], "paired": True, "swaps": [[1, 2]]}
    assert config["transforms"]["batch_augmentation"][-1]["sides"] == config["derived"]["sides"] == sides


def test_auto_flips_nothing_that_was_not_mirrored_in_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["inference.mirror_axes=auto", "schedule.epochs=1", "sampling.batches_per_epoch=1"]
    for augmentation, axes in (("light", []), ("upright", [0]), ("nnunet", [0, 1, 2])):
        train(data, tmp_path / augmentation, f"augmentation={augmentation}", *short)
        config = yaml.safe_load((tmp_path / augmentation / "config.yaml").read_text())
        assert config["inference"]["mirror_axes"] == axes
    assert "mirroring" not in capsys.readouterr().out


def test_validation_during_training_flips_nothing_unless_asked(data: Path, tmp_path: Path) -> None:
    def course(name: str, *overrides: str) -> list[float]:
        train(data, tmp_path / name, "schedule.epochs=1", *overrides)
        found: list[float] = pd.read_csv(tmp_path / name / "fold_0" / "metrics.csv")["val_metric"].tolist()
        return found

    flips = "inference.mirror_axes=[0,1,2]"
    plain = course("no_axes")
    assert course("default", flips) == plain
    assert course("asked", flips, "trainer.validate_flips=true") != plain


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["null", "nnunet"])
def test_worker_processes_change_nothing(data: Path, tmp_path: Path, augmentation: str) -> None:
    chosen = f"augmentation={augmentation}"
    assert same(train(data, tmp_path / "none", chosen), train(data, tmp_path / "two", chosen, "trainer.workers=2"))


def test_the_clock_ends_training_with_the_rate_at_zero(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, "schedule.budget=4s", "schedule.epochs=null")
    history = pd.read_csv(tmp_path / "fold_0" / "metrics.csv")
    assert history["lr"].max() > 1e-3
    assert history["lr"].iloc[-1] < 0.2 * history["lr"].max()
    assert history["step"].iloc[-1] > 3


def test_early_stopping_and_best_checkpoint(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, "optimizer.lr=0.0", "trainer.early_stopping=2", "schedule.epochs=50")
    folds = json.loads((tmp_path / "summary.json").read_text())["folds"]
    assert folds[0]["epochs"] == 3  # the first, and two without a gain
    best = read_checkpoint(tmp_path / "fold_0" / "checkpoints" / "best.ckpt")
    assert best["epoch"] == folds[0]["best_epoch"] == 0


@pytest.mark.parametrize(
    "stop", ["schedule.epochs=3", "trainer.max_steps=5", "trainer.max_time=1s", "schedule.budget=2s"]
)
def test_best_and_last_weights_are_both_validated(data: Path, tmp_path: Path, stop: str) -> None:
    """Wherever training stops, though epochs without validation lie between: here every second has one."""
    given = [] if "epochs" in stop else ["schedule.epochs=null"] if "budget" in stop else ["schedule.epochs=1000"]
    last = train(data, tmp_path, "trainer.validate_every=2", stop, *given)
    fold = json.loads((tmp_path / "summary.json").read_text())["folds"][0]
    history = pd.read_csv(tmp_path / "fold_0" / "metrics.csv")
    assert last["global_step"] == fold["steps"] == history["step"].iloc[-1]
    assert fold["last_validation_metric"] == pytest.approx(history["val_metric"].iloc[-1])
    assert fold["best_validation_metric"] == pytest.approx(history["val_metric"].max())
    best = read_checkpoint(tmp_path / "fold_0" / "checkpoints" / "best.ckpt")
    assert best["epoch"] == fold["best_epoch"] == history["val_metric"].idxmax()


def test_the_best_weights_can_be_evaluated(data: Path, tmp_path: Path) -> None:
    """A loss turned round makes weights that only get worse: those of the first validation are the best."""
    overrides = ["evaluation.checkpoint=best", "optimizer.lr=0.01", "schedule=constant", "trainer.ema_decay=null"]
    overrides += ["loss.function.dice_factor=-1.0", "loss.function.ce_factor=-1.0"]
    train(data, tmp_path, *overrides, "schedule.epochs=3")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["checkpoint"] == "best"
    assert summary["folds"][0]["best_epoch"] == 0
    case = json.loads((tmp_path / "folds.json").read_text())["folds"][0]["validation"]["cases"][0]
    image = data / "data" / "imagesTr" / f"{case}.nii.gz"
    masks = {"recorded": np.asarray(nib.load(tmp_path / "fold_0" / "predictions" / image.name).dataobj)}
    for name in ("best", "last"):
        out = tmp_path / name
        assert main(["predict", f"run={tmp_path}", f"input={image}", f"output={out}", f"checkpoint={name}"]) == 0
        masks[name] = np.asarray(nib.load(out / image.name).dataobj)
    assert np.array_equal(masks["best"], masks["recorded"])
    assert not np.array_equal(masks["last"], masks["recorded"])


def test_ctrl_c_keeps_what_exists(data: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    given = [f"data.root={data / 'data'}", f"cache={data / 'cache'}", f"output={tmp_path / 'run'}"]
    given += ["schedule.budget=10m", "schedule.epochs=null", f"tracking.uri={store}"]
    command = [sys.executable, "-m", "pipeline", *SHORT, *given]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A job that a shell starts in the background ignores SIGINT, and so would all that it starts.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "run" / "fold_0" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert read_checkpoint(tmp_path / "run" / "fold_0" / "checkpoints" / "last.ckpt")["global_step"] > 0
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("hippocampus_unet")
    assert experiment is not None
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"KILLED"}


def test_a_failed_save_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"network.w": torch.ones(3)}}, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"network.w": torch.zeros(3)}}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    assert torch.equal(read_checkpoint(path)["state_dict"]["network.w"], torch.ones(3))
