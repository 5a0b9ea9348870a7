"""The parts of going on: which batches are left, the clock of a repetition, what of a configuration changed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config.compose import compose
from pipeline.config.recorded import (
    EXPERIMENT_FILE,
    changed_keys,
    read_plain_yaml,
    record,
    recorded_configuration,
    refuse_changes,
)
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.data.order import CaseOrder, EpochBatches
from pipeline.errors import UserError
from pipeline.tasks.parts import StepInParts
from pipeline.training.checkpoint import AtomicCheckpointIO
from pipeline.training.manifest import Manifest
from pipeline.training.pace import Pace
from pipeline.training.resume_points import newest_point
from pipeline.training.run_folder import interrupted_folder, new_folder, release_folders
from pipeline.training.schedule import Cosine


def batches() -> EpochBatches:
    return EpochBatches(CaseOrder((tuple(range(7)),), seed=3), batches=5, batch_size=2)


def test_a_resumed_epoch_has_the_batches_that_are_left() -> None:
    whole, resumed = batches(), batches()
    whole.set_epoch(4)
    resumed.resume_at(4, 3)
    assert list(resumed) == list(whole)[3:]
    assert len(resumed) == 5
    for epoch in (5, 6):
        whole.set_epoch(epoch)
        resumed.set_epoch(epoch)
        assert list(resumed) == list(whole)


def test_a_repetition_follows_the_recorded_progress() -> None:
    recorded = [0.0, 0.1, 0.4, 1.0]
    pace = Pace(Cosine(warmup=0.0), total_steps=100, budget=1e-9, replay=recorded)
    assert [pace.now(step) for step in range(5)] == [*recorded, 1.0]
    trainer: Any = SimpleNamespace(global_step=3, world_size=1, should_stop=False, optimizers=[])
    pace.on_train_batch_end(trainer, nn.Linear(1, 1), None, None, 0)  # type: ignore[arg-type]
    assert not trainer.should_stop
    trainer.global_step = 4
    pace.on_train_batch_end(trainer, nn.Linear(1, 1), None, None, 0)  # type: ignore[arg-type]
    assert trainer.should_stop


def test_what_was_recorded_is_read_back_with_its_types(tmp_path: Path) -> None:
    tree = {"a": {"b": "1e5", "c": 1e-5, "d": "null", "e": None, "f": "${derived.spacing}", "g": [1, 2.0, True]}}
    record(tmp_path / EXPERIMENT_FILE, tree)
    found = read_plain_yaml(tmp_path / EXPERIMENT_FILE)
    assert found["a"] == tree["a"]
    assert [type(value) for value in found["a"]["g"]] == [int, float, bool]
    assert changed_keys(found, {**tree, "planning": None, "plan": None}) == {}


def test_a_folder_begun_by_a_killed_process_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").write_text("process 1 on here\n")
    (folder / ".experiment.yaml.partial").write_text("name: half")
    try:
        assert interrupted_folder("auto", {}, folder, "run") is None
        assert new_folder(folder, "run") == folder
        release_folders()
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(UserError, match="not empty"):
            new_folder(folder, "run")
    finally:
        release_folders()


def test_changes_are_named_and_those_that_change_nothing_are_not() -> None:
    before = {"seed": 0, "output": "a", "folds": {"run": [0], "count": 5}, "optimizer": {"lr": 0.1}}
    now = {"seed": False, "output": "b", "folds": {"run": None, "count": 5}, "optimizer": {"lr": 0.2, "eps": 1.0}}
    changes = changed_keys(before, now)
    assert list(changes) == ["seed", "optimizer.lr", "optimizer.eps"]
    refuse_changes(Path("run"), changes, ["seed", "optimizer"])
    with pytest.raises(UserError) as refused:
        refuse_changes(Path("run"), changes, ["optimizer.lr"])
    assert "optimizer.eps: absent then, 1.0 now" in str(refused.value)
    assert "optimizer.lr" not in str(refused.value)


def test_a_recorded_configuration_is_checked_like_any_other(tmp_path: Path) -> None:
    composed = validate(compose("train", ["experiment=lung_unet"]), TrainConfig)
    record(tmp_path / EXPERIMENT_FILE, composed.tree)
    again = recorded_configuration(tmp_path, TrainConfig, overrides=["seed=7"], values={"trainer.threads": 1})
    assert isinstance(again.model, TrainConfig)
    assert (again.model.seed, again.model.trainer.threads) == (7, 1)
    assert sorted(changed_keys(composed.tree, again.tree)) == ["seed", "trainer.threads"]
    for line in ("  _target_: os.system", "  _target_: subprocess.run"):
        text = (tmp_path / EXPERIMENT_FILE).read_text()
        (tmp_path / "evil").mkdir(exist_ok=True)
        (tmp_path / "evil" / EXPERIMENT_FILE).write_text(text.replace("  _target_: pipeline.networks.UNet", line))
        with pytest.raises(UserError, match="network"):
            recorded_configuration(tmp_path / "evil", TrainConfig)


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / EXPERIMENT_FILE).write_text("\n".join(lines))
    with pytest.raises(UserError):
        read_plain_yaml(tmp_path / EXPERIMENT_FILE)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle = nn.Linear(3, 2), nn.Linear(1, 1)


def test_a_step_in_parts_has_the_gradients_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    network, tried = Small(), []
    batch = {"image": torch.randn(5, 3), "label": torch.randn(5, 2), "note": "as it is"}

    def loss_of(part: dict[str, Any]) -> torch.Tensor:
        tried.append(len(part["image"]))
        if len(part["image"]) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")
        assert part["note"] == "as it is"
        return ((network.layer(part["image"]) - part["label"]) ** 2).mean()

    step = StepInParts()
    loss, gradients = step(batch, loss_of, list(network.parameters()))
    assert step.parts == 4
    assert tried == [5, 2, 3, 1, 1, 2, 1]
    whole = ((network.layer(batch["image"]) - batch["label"]) ** 2).mean()
    expected = torch.autograd.grad(whole, list(network.layer.parameters()))
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for gradient, value in zip(gradients, [*expected, None, None], strict=True):
        assert (gradient is None and value is None) or torch.allclose(gradient, value, atol=1e-6)


def test_one_sample_that_does_not_fit_is_an_error() -> None:
    def loss_of(part: dict[str, Any]) -> torch.Tensor:
        raise MemoryError("no memory")

    with pytest.raises(UserError, match="one sample at a time"):
        StepInParts()({"image": torch.zeros(3, 1)}, loss_of, [])


def point(folder: Path, step: int, processed: int, started: int, batch: int) -> Path:
    loops = {
        "fit_loop": {
            "epoch_progress": {"current": {"processed": processed, "started": started}},
            "epoch_loop.batch_progress": {"current": {"processed": batch}},
        }
    }
    path = folder / f"step_{step:09d}.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "loops": loops}, path)
    return path


def test_the_newest_whole_point_is_found(tmp_path: Path) -> None:
    assert newest_point(tmp_path) is None
    point(tmp_path, 12, processed=3, started=4, batch=2)
    newest = point(tmp_path, 14, processed=4, started=4, batch=4)
    found = newest_point(tmp_path)
    assert found is not None
    assert (found.path, found.epoch, found.batch) == (newest, 4, 0)
    newest.write_bytes(newest.read_bytes()[:-100])
    found = newest_point(tmp_path)
    assert found is not None
    assert (found.epoch, found.batch) == (3, 2)


def test_a_manifest_names_what_changed(tmp_path: Path) -> None:
    rows = (("a", "p1", "0", "images/a.nii", "11"), ("b", "p2", "1", "images/b.nii", "22"))
    Manifest(rows).write(tmp_path)
    read = Manifest.read(tmp_path)
    assert read.rows == rows
    read.require_same(Manifest(rows[::-1]), tmp_path)
    other = Manifest((("a", "p1", "1", "images/a.nii", "11"), ("b", "p2", "1", "images/b.nii", "23")))
    with pytest.raises(UserError) as changed:
        read.require_same(other, tmp_path)
    assert "b: images/b.nii has other content" in str(changed.value)
    assert "a: patient p1, fold 0 then; patient p1, fold 1" in str(changed.value)
