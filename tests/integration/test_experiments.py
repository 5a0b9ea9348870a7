"""Every shipped experiment, found by listing the folder, trains two steps on generated data and leaves its results."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.cli import main
from pipeline.conf_dir import conf_dir
from tests.integration.generated import EXPERIMENTS

SHIPPED = sorted(path.stem for path in (conf_dir() / "experiment").glob("**/*.yaml"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def test_each_experiment_has_its_data() -> None:
    assert sorted(EXPERIMENTS) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_two_steps(name: str, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, tiny = EXPERIMENTS[name]
    overrides = [
        f"experiment={name}",
        *tiny,
        "trainer.max_steps=2",
        "trainer.validate_every=1",
        "schedule.budget=null",
        "schedule.epochs=1",
        "sampling.batch_size=2",
        "sampling.batches_per_epoch=2",
        "folds.count=3",
        "folds.run=[0]",
        f"cache={tmp_path / 'cache'}",
        f"output={tmp_path / 'run'}",
        f"tracking.uri={store}",
    ]
    if write is not None:
        write(tmp_path / "data")
        overrides.append(f"data.root={tmp_path / 'data'}")
    assert main(overrides) == 0

    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["experiment"] == name
    assert summary["folds"][0]["steps"] == 2
    main_metric = "dice" if summary["task"] == "segmentation" else "auroc"
    metric = summary["metrics"][main_metric]
    assert 0 <= metric["mean"] <= 1
    assert len(metric["per_fold"]) == 1
    folds = json.loads((run / "folds.json").read_text())["folds"]
    cases = pd.read_csv(run / "cases.csv", dtype={"case_id": str})
    assert set(cases["case_id"]) == set(folds[0]["validation"]["cases"])
    assert summary["n_cases"] == cases["case_id"].nunique()
    assert (run / "figures" / "learning_curves.png").stat().st_size > 1000
    for checkpoint in ("last", "best"):
        assert (run / "fold_0" / "checkpoints" / f"{checkpoint}.ckpt").is_file()

    client = MlflowClient(store)
    ids = summary["mlflow"]
    parent = client.get_run(ids["run_id"])
    child = client.get_run(ids["fold_run_ids"]["fold_0"])
    assert parent.info.status == child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == ids["run_id"]
    assert parent.data.metrics[main_metric] == pytest.approx(metric["mean"])
    assert len(client.get_metric_history(ids["fold_run_ids"]["fold_0"], "train_loss")) == 1
    names = {item.path for item in client.list_artifacts(ids["run_id"])}
    assert {"config.yaml", "folds.json", "cases.csv", "summary.json", "figures"} <= names
