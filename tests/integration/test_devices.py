"""Several processes (gloo, on CPUs) train, validate and predict what one does: by Lightning, torchrun, on two nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from pipeline.cli import main
from pipeline.prediction.weights import read_checkpoint
from tests.integration.generated import hippocampus, shenzhen
from tests.torture.killing import COMMON

SMALL = [*COMMON, "folds.count=2", "schedule.epochs=2", "sampling.batches_per_epoch=3", "sampling.batch_size=4",
         "trainer.validate_every=1", "trainer.validate_cases=3", "trainer.precision=32", "sampling.batch_of=all",
         "optimizer=sgd", "tracking.enabled=false"]  # fmt: skip
THREE_D = ["experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "network.width=4", "loss=dice_ce_batch"]
TWO_D = ["experiment=tb_xray_cnn", "transforms.size=[32,32]", "network.width=4", "loss.class_weights=inverse"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
SHARDS = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.shard_parameters=500"]
ALONE = ("-m", "pipeline")
TORCHRUN = ("-m", "torch.distributed.run")
EXACT = {"rtol": 1e-4, "atol": 1e-6}


class Place:
    """Data, and trainings of them."""

    def __init__(self, folder: Path, task: list[str]) -> None:
        (hippocampus if task is THREE_D else shenzhen)(folder / "data")
        self.given = [*task, *SMALL, f"data.root={folder / 'data'}", f"cache={folder / 'cache'}"]

    def one(self, output: Path, *overrides: str) -> Path:
        """In this process."""
        assert main([*self.given, f"output={output}", *overrides]) == 0
        return output

    def several(self, output: Path, *overrides: str, launcher: Sequence[str] = ALONE) -> Path:
        """In processes of their own."""
        done = self.start(output, *overrides, launcher=launcher)
        said, _ = done.communicate(timeout=300)
        assert done.returncode == 0, said
        return output

    def start(
        self, output: Path, *overrides: str, launcher: Sequence[str] = ("-m", "pipeline")
    ) -> subprocess.Popen[str]:
        command = [sys.executable, *launcher, *self.given, f"output={output}", *overrides]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("devices"), THREE_D)


@pytest.fixture(scope="module")
def one(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place.one(tmp_path_factory.mktemp("one") / "run", "folds.run=[0]")


def require_same(one: Path, several: Path) -> None:
    """Course, weights and every case, once, in the same order; the numbers to float tolerance."""
    for path in sorted(one.glob("fold_*/metrics.csv")):
        first, second = (pd.read_csv(root / path.parent.name / path.name) for root in (one, several))
        assert list(first.columns) == list(second.columns)
        for name in first.columns.drop("seconds"):
            np.testing.assert_allclose(second[name], first[name], **EXACT, err_msg=name)
        weights = [read_checkpoint(root / path.parent.name / "checkpoints" / "last.ckpt")["state_dict"]
                   for root in (one, several)]  # fmt: skip
        assert weights[0].keys() == weights[1].keys()
        for name, weight in weights[0].items():
            assert type(weights[1][name]) is torch.Tensor
            assert torch.allclose(weight, weights[1][name], atol=1e-5), name
    first, second = (pd.read_csv(root / "cases.csv") for root in (one, several))
    assert first["case_id"].tolist() == second["case_id"].tolist()
    pd.testing.assert_frame_equal(first, second, rtol=1e-3, atol=1e-4)
    counts = [json.loads((root / "summary.json").read_text())["n_cases"] for root in (one, several)]
    assert counts[0] == counts[1]


def test_two_processes_train_like_one(place: Place, one: Path, tmp_path: Path) -> None:
    """Batch Dice, an average of the weights, three validation cases and five held-out ones for two processes."""
    require_same(one, place.several(tmp_path / "two", *TWO, "folds.run=[0]"))


@pytest.mark.slow
def test_two_processes_classify_like_one(tmp_path: Path) -> None:
    """Batch norm, class weights in the loss, two folds in one command."""
    # Dropout draws for each process by itself; at depth 5 a norm is of four numbers, which magnifies their rounding.
    place = Place(tmp_path, [*TWO_D, "network.dropout=0.0", "network.depth=3"])
    require_same(place.one(tmp_path / "one"), place.several(tmp_path / "two", *TWO))


@pytest.mark.slow
def test_shards_train_like_one_process(place: Place, tmp_path: Path) -> None:
    alone = place.one(tmp_path / "one", "folds.run=[0]", "trainer.ema_decay=null")
    require_same(alone, place.several(tmp_path / "shards", *SHARDS, "folds.run=[0]"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [TWO, SHARDS], ids=["ddp", "fsdp"])
def test_several_processes_are_killed_and_gone_on_with(place: Place, tmp_path: Path, how: list[str]) -> None:
    """Killed while they train: the same weights as undisturbed."""
    given = [*how, "folds.run=[0]", "schedule.epochs=6", "checkpoint.every=0s"]
    undisturbed = place.several(tmp_path / "undisturbed", *given)
    job = place.start(tmp_path / "killed", *given)
    points = tmp_path / "killed" / "fold_0" / "resume"
    while not any(int(path.stem.partition("_")[2]) >= 5 for path in points.glob("step_*.ckpt")):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    wait_for_none(tmp_path / "killed")
    assert not (tmp_path / "killed" / "fold_0" / "fitted.json").exists()
    require_same(undisturbed, place.several(tmp_path / "killed", *given, "resume=auto"))


def wait_for_none(output: Path, seconds: float = 60.0) -> None:
    """Until no process with this output folder is left."""
    deadline = time.monotonic() + seconds
    while any(f"output={output}" in process.info["cmdline"] for process in psutil.process_iter(["cmdline"])
              if process.info["cmdline"]):  # fmt: skip
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun(place: Place, one: Path, tmp_path: Path) -> None:
    """``auto`` takes the processes that it started; all begin at once."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pipeline"]
    found = place.several(
        tmp_path / "run", "trainer=ddp", "trainer.accelerator=cpu", "folds.run=[0]", launcher=launcher
    )
    require_same(one, found)


@pytest.mark.slow
def test_two_nodes(place: Place, one: Path, tmp_path: Path) -> None:
    """Two agents of torchrun on this machine, one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for node in range(2):
        launcher = [*TORCHRUN, "--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1",
                    "--master-addr", "127.0.0.1", "--master-port", str(port), *ALONE]  # fmt: skip
        how = ["trainer=ddp", "trainer.accelerator=cpu", "folds.run=[0]"]
        nodes.append(place.start(tmp_path / "run", *how, launcher=launcher))
    for node in nodes:
        said, _ = node.communicate(timeout=300)
        assert node.returncode == 0, said
    require_same(one, tmp_path / "run")


def test_a_launcher_that_started_another_number(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "4",
    }
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    assert main([*place.given, *TWO, f"output={tmp_path / 'run'}"]) == 2
    assert "torchrun started 4 process(es), but trainer.devices=2" in capsys.readouterr().err
