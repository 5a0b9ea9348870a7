"""Which process this is, how many there are, what each takes of a batch."""

from __future__ import annotations

from functools import cache

import pytest

from pipeline.config.compose import compose
from pipeline.config.schema import COMMANDS, TrainConfig
from pipeline.config.validate import validate
from pipeline.errors import UserError
from pipeline.ranks import launcher, rank
from pipeline.training.devices import Processes, device_batch, processes_of
from pipeline.training.shards import require_shards

VARIABLES = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS",
             "SLURM_PROCID", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NAME")  # fmt: skip
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@cache
def settings(*overrides: str) -> TrainConfig:
    model = validate(compose("train", ["trainer.accelerator=cpu", *overrides]), COMMANDS["train"]).model
    assert isinstance(model, TrainConfig)
    return model


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "1"}, 1),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, 2),
        (TORCHRUN, 3),
        (SLURM, 2),
        (SLURM | TORCHRUN, 3),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, 0),
    ],
)
def test_rank(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int) -> None:
    set_all(monkeypatch, environment)
    assert rank(per_node=2) == expected
    assert (rank() > 0) == (expected > 0)  # one process alone writes, also where the nodes' size is not known


def test_slurm_is_what_lightning_takes_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_fabric.plugins.environments import SLURMEnvironment

    for environment in ({}, SLURM, SLURM | {"SLURM_JOB_NAME": "interactive"}):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        set_all(monkeypatch, environment)
        assert (launcher() is not None) == SLURMEnvironment.detect()


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM, SLURM | {"SLURM_NTASKS_PER_NODE": "2(x2)"}])
def test_auto_takes_what_a_launcher_started(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    set_all(monkeypatch, environment)
    found = processes_of(settings("trainer.num_nodes=2", "trainer.devices=auto").trainer)
    assert (found.devices, found.nodes, found.count) == (2, 2, 4)
    if environment["SLURM_NTASKS_PER_NODE" if "SLURM_NTASKS" in environment else "LOCAL_WORLD_SIZE"] == "2":
        assert processes_of(settings("trainer=ddp", "trainer.accelerator=cpu").trainer) == found
    with pytest.raises(UserError, match=r"started 4 process\(es\), but trainer.devices=2 x trainer.num_nodes=1 are 2"):
        processes_of(settings("trainer.devices=2").trainer)


def test_without_a_launcher() -> None:
    assert processes_of(settings().trainer) == Processes(0, 1, 1)
    assert processes_of(settings("trainer=ddp", "trainer.accelerator=cpu").trainer) == Processes(0, 1, 1)
    assert processes_of(settings("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=3").trainer).count == 3


def test_the_batch_of_a_device() -> None:
    many = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=3", "sampling.batch_size=8"]
    assert device_batch(settings(*many)) == 8
    assert device_batch(settings(*many, "sampling.batch_size=12", "sampling.batch_of=all")) == 4
    assert device_batch(settings("sampling.batch_size=8", "sampling.batch_of=all")) == 8
    with pytest.raises(UserError, match="cannot be divided among 3 devices") as told:
        device_batch(settings(*many, "sampling.batch_of=all"))
    assert "set sampling.batch_size=6 or 9" in str(told.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.ema_decay=0.9", "keeps no average of the weights"),
        ("optimizer=muon", "optimizer=muon needs whole matrices"),
        ("engine.memory_format=channels_last", "shards contiguous weights alone"),
    ],
)
def test_what_shards_cannot_do_is_refused(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        require_shards(settings("trainer=fsdp", override))
    require_shards(settings("trainer=ddp", override))
