"""tracking=server: an address from the environment, which stays there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands.reproduce import as_it_was
from pipeline.config.compose import Composed, compose
from pipeline.config.schema import COMMANDS, TrainConfig
from pipeline.config.validate import validate
from pipeline.errors import UserError
from pipeline.prediction.trained_run import ModelCard
from pipeline.tracking.uri import artifact_root

URI = "https://someone:hunter2hunter2@mlflow.example.org/prefix"


def composed(command: str, *overrides: str) -> Composed:
    return validate(compose(command, overrides), COMMANDS[command])


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    training = composed("train", "experiment=lung_unet", "tracking=server", "tracking.checkpoints=false")
    assert isinstance(training.model, TrainConfig)
    tracking = training.model.tracking
    assert (tracking.uri, tracking.enabled, tracking.checkpoints) == (URI, True, False)
    assert training.tree["tracking"]["uri"] == "${oc.env:MLFLOW_TRACKING_URI}"
    assert "hunter2" not in str(training.tree)


@pytest.mark.parametrize("command", ["train", "sync", "predict", "reproduce"])
def test_without_an_address_it_says_so(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    needed = {"train": ["experiment=lung_unet"], "predict": ["run=a", "input=b", "output=c"]}.get(command, ["run=a"])
    assert main([command, *needed, "tracking=server"]) == 2
    said = capsys.readouterr()
    assert "MLFLOW_TRACKING_URI is not set" in said.out + said.err
    assert "export MLFLOW_TRACKING_URI=" in said.out + said.err


def test_an_address_that_is_none_is_told_of_before_the_data_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlflow.example.org:5000")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "experiment=tb_xray_cnn", "data.root=nowhere", "tracking=server"]) == 2
    said = capsys.readouterr().err
    assert "not an address of an MLflow store" in said
    assert "nowhere" not in said


def test_a_repetition_writes_down_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    again = composed("reproduce", "run=a", "tracking=server")
    card = ModelCard("classification", ("a", "b"), None, None, ("CT",), False, 0.0, "last", False, 3, 1)
    (tmp_path / "model.json").write_text(json.dumps(card.as_json()))
    values = as_it_was(tmp_path, {}, again.model, again.tree["tracking"])  # type: ignore[arg-type]
    assert "hunter2" not in str(values)
    assert values["tracking"]["uri"] == "${oc.env:MLFLOW_TRACKING_URI}"


@pytest.mark.parametrize(
    ("location", "root"),
    [
        (None, None),
        ("/data/mlflow files", "file:///data/mlflow%20files"),
        ("file:///data/mlflow", "file:///data/mlflow"),
        ("hdfs://host/mlflow/", "hdfs://host/mlflow"),
    ],
)
def test_places_for_artifacts(location: str | None, root: str | None) -> None:
    assert artifact_root(location) == root


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("outputs", "not a place for artifacts"),
        ("s4://bucket", "not a place for artifacts"),
        ("s3://", "not a place for artifacts"),
        ("hdfs://me:hunter2@host/mlflow", "credentials do not belong"),
        ("gs://bucket/mlflow", "google.cloud.storage is not installed"),
    ],
)
def test_what_is_no_place_for_artifacts(location: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault) as error:
        artifact_root(location)
    assert "hunter2" not in str(error.value)
    assert error.value.remedies
