"""python -m pipeline reproduce: the same numbers again from what a run stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from pipeline.cli import main
from pipeline.training.reproduction import compare_runs
from tests.integration.generated import hippocampus
from tests.torture.killing import COMMON

SMALL = ["experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "network.width=4", *COMMON, "folds.run=[0]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by the clock, so that a repetition cannot take the same time."""
    folder = tmp_path_factory.mktemp("reproduce")
    hippocampus(folder / "data")
    clock = ["schedule.budget=4s", "schedule.epochs=null", "trainer.max_time=1h", "augmentation=nnunet"]
    given = [f"data.root={folder / 'data'}", f"cache={folder / 'cache'}", f"output={folder / 'run'}"]
    assert main([*SMALL, *clock, *given, f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]) == 0
    return folder / "run"


def reproduce(run: Path, output: Path, *overrides: str) -> int:
    store = f"tracking.uri=sqlite:///{output.parent / 'again.db'}"
    return main(["reproduce", f"run={run}", f"output={output}", f"cache={run.parent / 'cache'}", store, *overrides])


def test_a_run_by_the_clock_is_repeated_to_the_bit(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce(run, tmp_path / "again") == 0
    assert "identical: 2 weights" in capsys.readouterr().out
    found = json.loads((tmp_path / "again" / "reproduction.json").read_text())
    assert found["same"]
    assert found["compared"]["values of cases"] > 20


def test_by_its_id_in_mlflow_from_artifacts_alone(run: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{run.parent / 'mlflow.db'}"
    client = MlflowClient(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    parent = next(r for r in client.search_runs(experiments) if "mlflow.parentRunId" not in r.data.tags)
    hidden = run.rename(run.with_name("hidden"))
    try:
        command = ["reproduce", f"run={parent.info.run_id}", f"tracking.uri={store}", f"output={tmp_path / 'again'}"]
        assert main([*command, f"cache={run.parent / 'cache'}"]) == 0
    finally:
        hidden.rename(run)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can have it")
def test_an_engine_that_this_machine_cannot_have_is_done_without(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "of_a_gpu")
    path = tmp_path / "of_a_gpu" / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["engine"]["engine"]["compile"] = "graphs"
    path.write_text(json.dumps(provenance))
    assert reproduce(tmp_path / "of_a_gpu", tmp_path / "again") == 0


def test_what_differs_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "altered")
    path = tmp_path / "altered" / "experiment.yaml"
    path.write_text(path.read_text().replace("ema_decay: 0.99", "ema_decay: 0.5"))
    provenance = tmp_path / "altered" / "provenance.json"
    content = json.loads(provenance.read_text())
    content["packages"]["torch"] = "1.0"
    provenance.write_text(json.dumps(content))
    assert reproduce(tmp_path / "altered", tmp_path / "again") == 1
    said = capsys.readouterr().out
    assert "differs: torch: 1.0 then" in said
    assert "different: " in said


def test_a_tolerance_is_for_numbers_and_not_for_decisions(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "altered")
    path = tmp_path / "altered" / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["dice"]["mean"] += 0.01
    path.write_text(json.dumps(summary))
    assert reproduce(tmp_path / "altered", tmp_path / "again", "tolerance=0.011") == 0
    assert [entry.what for entry in compare_runs(tmp_path / "altered", tmp_path / "again", 0.009).differences] == [
        "summary.metrics.dice.mean"
    ]
    summary["postprocessing"]["kept"] = ["a", "step", "too", "many"]
    path.write_text(json.dumps(summary))
    assert [entry.what for entry in compare_runs(tmp_path / "altered", tmp_path / "again", 1e9).differences] == [
        "summary.postprocessing.kept"
    ]


def test_other_data_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run.parent / "data", tmp_path / "data")
    assert reproduce(run, tmp_path / "moved", f"data.root={tmp_path / 'data'}") == 0
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / folder / "hippocampus_004.nii.gz").unlink()
    index = tmp_path / "data" / "dataset.json"
    content = json.loads(index.read_text())
    content["training"] = [entry for entry in content["training"] if "004" not in entry["image"]]
    content["numTraining"] = len(content["training"])
    index.write_text(json.dumps(content))
    assert reproduce(run, tmp_path / "refused", f"data.root={tmp_path / 'data'}") == 2
    assert "hippocampus_004" in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", f"run={tmp_path}"]) == 2
    assert "not the folder of a run" in capsys.readouterr().err
