"""The engine of a run: measured, written down, and the same bits again from what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.cli import main
from pipeline.prediction.weights import network_weights, read_checkpoint
from pipeline.training.device import computes_bf16
from tests.integration.generated import hippocampus

SHORT = ["experiment=hippocampus_unet", "network=nnunet", "network.width=8", "sampling.patch_size=[16,24,16]",
         "sampling.batch_size=2", "folds.count=3", "folds.run=[0]", "evaluation.figures=false", "optimizer=sgd",
         "sampling.batches_per_epoch=2", "trainer.validate_cases=1", "schedule.budget=null", "schedule.epochs=1",
         "tracking.enabled=false"]  # fmt: skip


def test_the_engine_is_recorded_and_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hippocampus(tmp_path / "data")

    def train(name: str, cache: str, *overrides: str) -> dict[str, torch.Tensor]:
        given = [f"data.root={tmp_path / 'data'}", f"output={tmp_path / name}", f"cache={tmp_path / cache}"]
        assert main([*SHORT, *given, *overrides]) == 0
        return network_weights(read_checkpoint(tmp_path / name / "fold_0" / "checkpoints" / "last.ckpt"))

    first = train("first", "cache")
    assert "engine: " in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "first" / "config.yaml").read_text())
    recorded, precision = config["engine"], config["trainer"]["precision"]
    assert recorded["norm"] in ("stock", "fused")
    assert recorded["memory_format"] in ("contiguous", "channels_last") and recorded["compile"] is False
    found = json.loads((tmp_path / "first" / "provenance.json").read_text())["engine"]
    assert found["source"] == "measured" and found["engine"]["norm"] == recorded["norm"]
    assert found["engine"]["precision"] == precision
    assert json.loads((tmp_path / "first" / "model.json").read_text())["bf16"] == (precision == "bf16")
    assert len(found["seconds"]) + len(found["failed"]) == (8 if computes_bf16("cpu") else 4)

    given = [f"engine.{key}={json.dumps(recorded[key])}" for key in ("norm", "memory_format", "compile")]
    second = train("second", "elsewhere", *given, f"trainer.precision={json.dumps(precision)}")
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)

    train("third", "cache")
    assert "remembered" in capsys.readouterr().out
    assert (tmp_path / "third" / "cases.csv").read_bytes() == (tmp_path / "first" / "cases.csv").read_bytes()
