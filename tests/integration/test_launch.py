"""Folds as jobs: the same numbers as in one process, one MLflow run above them, and what becomes of failures."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.cli import main
from pipeline.evaluation.summary import comparable
from pipeline.tracking import store_uri
from tests.integration.generated import hippocampus
from tests.processes import Job

TINY = ["experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "sampling.batch_size=2", "folds.count=2",
        "sampling.batches_per_epoch=3", "trainer.validate_cases=2", "evaluation.figures=false",
        "schedule.budget=null", "schedule.epochs=2", "trainer.validate_every=1"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch")
    hippocampus(folder / "data")
    return folder


def given(data: Path, output: Path, *overrides: str) -> list[str]:
    uri = store_uri(None, data / "mlflow.db")
    places = [f"data.root={data / 'data'}", f"cache={data / 'cache'}", f"tracking.uri={uri}", f"output={output}"]
    return [*TINY, *places, *overrides]


def of_one_process(data: Path) -> Path:
    """The folder of the same run in one process, made once."""
    folder = data / "one"
    if not (folder / "summary.json").exists():
        assert main(given(data, folder, "trainer.threads=1")) == 0
    return folder


def numbers(folder: Path) -> tuple[dict[str, Any], bytes]:
    return comparable(json.loads((folder / "summary.json").read_text())), (folder / "cases.csv").read_bytes()


def fold_pids(log: Path) -> dict[str, int]:
    """Process ids by fold, as the table of jobs tells them."""
    lines = [line.split(": running as ") for line in log.read_text().splitlines() if ": running as " in line]
    return {name: int(pid) for name, pid in lines}


@pytest.fixture(scope="module")
def killed(data: Path) -> Job:
    """A run by jobs of which one was killed, ended; its folder is ``jobs``."""
    output = data / "jobs"
    job = Job(given(data, output, "launch=local", "launch.engine.cores=1"), data / "log")
    job.wait_for(output / "fold_0" / "metrics.csv")
    os.kill(fold_pids(data / "log")["fold_0"], signal.SIGKILL)
    assert job.end() == 0, job.said()
    return job


def test_folds_as_jobs_give_the_same_numbers_though_one_is_killed(data: Path, killed: Job) -> None:
    output = data / "jobs"
    assert "fold_0: to be started again" in killed.said()
    assert numbers(output) == numbers(of_one_process(data))

    ids = json.loads((output / "summary.json").read_text())["mlflow"]
    client = MlflowClient(tracking_uri=ids["uri"])
    assert client.get_run(ids["run_id"]).info.status == "FINISHED"
    for fold, run_id in ids["fold_run_ids"].items():
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == ids["run_id"]
        assert len(client.get_metric_history(run_id, "train_loss")) == 2
        assert f"{fold}.log" in [artifact.path for artifact in client.list_artifacts(run_id)]
        assert "fold" in (output / "jobs" / f"{fold}.log").read_text()
    assert list(ids["fold_run_ids"]) == ["fold_0", "fold_1"]
    runs = client.search_runs([ids["experiment_id"]], f"tags.`pipeline.output` = '{output}'")
    assert len(runs) == 3
    assert json.loads((output / "provenance.json").read_text())["threads"] == 1


@pytest.mark.slow
def test_ctrl_c_stops_the_jobs_and_resume_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = data / "stopped"
    job = Job(given(data, output, "launch=local", "launch.engine.cores=1"), tmp_path / "log")
    job.wait_for(output / "fold_1" / "metrics.csv")
    os.kill(job.pid, signal.SIGINT)
    assert job.end() == 130, job.said()
    pids = fold_pids(tmp_path / "log")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    assert f"resume={output}" in job.said()
    assert not (output / "summary.json").exists()

    assert main(["report", f"run={output}"]) == 1
    assert "stopped" in capsys.readouterr().out
    again = Job(["train", f"resume={output}", "launch=local", "launch.engine.cores=1"], tmp_path / "again")
    assert again.end() == 0, again.said()
    assert numbers(output) == numbers(of_one_process(data))


@pytest.mark.usefixtures("killed")
def test_report_summarises_what_nobody_summarised(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = data / "jobs"
    before = numbers(output)
    (output / "summary.json").unlink()
    assert main(["report", f"run={output}"]) == 0
    assert numbers(output) == before
    assert "Dice" in capsys.readouterr().out
    assert main(["report", f"run={of_one_process(data)}"]) == 0
    assert "Dice" in capsys.readouterr().out


def test_dry_run_shows_the_commands_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "nothing"
    assert main(given(data, output, "launch=local", "launch.engine.cores=1", "--dry-run")) == 0
    said = capsys.readouterr().out
    assert f"-m pipeline fold run={output} fold=1 threads=1" in said
    assert not output.exists()
    assert main(given(data, output, "--dry-run")) == 0
    assert "in this process" in capsys.readouterr().out


@pytest.mark.parametrize("launch", ["launch=local", "launch=ray", "launch=slurm launch.engine.at_once=2"])
def test_only_a_queue_that_holds_all_jobs_is_left_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], launch: str
) -> None:
    output = tmp_path / "run"
    assert main(given(data, output, *launch.split(), "launch.wait=false")) == 2
    assert "launch.wait=false: only the queue of Slurm goes on without this process" in capsys.readouterr().err
    assert not (output / "jobs").exists()


def test_a_fold_that_fails_is_told_with_the_end_of_its_log(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    wrong = ["launch=local", "launch.engine.cores=1", "launch.retries=0", "engine.compile=true"]
    environment = {"PATH": ""}  # no compiler
    job = Job(given(data, output, *wrong), tmp_path / "log", environment=environment)
    assert job.end() == 2
    assert "fold_0 failed with exit status 2" in job.said()
    assert "needs a C++ compiler" in job.said()
