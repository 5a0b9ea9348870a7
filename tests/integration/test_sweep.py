"""Sweeps of real trainings, killed and gone on with: what Optuna, the folder and MLflow hold in the end."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient

from pipeline.cli import main
from tests.integration.generated import hippocampus
from tests.processes import Job

TINY = (
    "experiment=hippocampus_unet",
    "sampling.patch_size=[16,24,16]",
    "network.width=4",
    "folds.count=2",
    "folds.run=[0]",
    "evaluation.figures=false",
    "evaluation.resamples=50",
    "schedule.budget=null",
    "sampling.batches_per_epoch=2",
    "sampling.batch_size=2",
    "trainer.validate_every=1",
    "trainer.validate_cases=2",
    "trainer.threads=1",
    "engine.norm=stock",
    "engine.memory_format=contiguous",
    "trainer.precision=32",
    "fingerprint.sample_voxels=100",
    "checkpoint.every=0.1s",
    "checkpoint.share=1",
    "launch.poll=0.2s",
)


class Sweep:
    """A sweep on tiny data in a folder of its own."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        hippocampus(folder / "data")
        self.output = folder / "sweep"
        self.database = f"sqlite:///{folder / 'mlflow.db'}"
        places = [f"data.root={folder / 'data'}", f"cache={folder / 'cache'}", f"tracking.uri={self.database}"]
        self.command = ["sweep", *TINY, *places, *overrides, f"output={self.output}"]
        self.log = folder / "log.txt"

    def start(self, *arguments: str) -> Job:
        return Job(arguments or self.command, self.log)

    def trial(self, number: int) -> Path:
        return self.output / "trials" / f"{number:04d}"

    def kill_trial(self, number: int) -> None:
        """SIGKILL the process that trains it."""
        holder = (self.trial(number) / ".lock").read_text()
        os.kill(int(holder.split()[1]), signal.SIGKILL)

    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="sweep", storage=f"sqlite:///{self.output / 'study.db'}")

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study().get_trials()]


def tracked(database: str) -> dict[str, tuple[str, str | None]]:
    """Status of each run and the name of its parent, by name; folds by that of their trial too."""
    client = MlflowClient(database)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    names = {run.info.run_id: run.info.run_name for run in runs}
    found: dict[str, tuple[str, str | None]] = {}
    for run in runs:
        parent = names.get(run.data.tags.get("mlflow.parentRunId", ""))
        name = f"{parent}/{run.info.run_name}" if run.info.run_name.startswith("fold") else run.info.run_name
        assert name not in found, f"{name} is there twice"
        found[name] = (run.info.status, parent)
    return found


def until(path: Path, job: Job, seconds: float = 120.0) -> None:
    job.wait_for(path, seconds)


def test_killed_and_gone_on_with(tmp_path: Path) -> None:
    """Of three trials the second fails. The first is killed while it trains; then the sweep, in the third."""
    space = "sweep.space={optimizer.lr: {choice: [0.004, 1.0e+30, 0.001]}}"
    sweep = Sweep(tmp_path, space, "sweep.sampler=grid", "sweep.trials=9", "schedule.epochs=2")
    job = sweep.start()
    until(sweep.trial(0) / "fold_0" / "resume", job)
    sweep.kill_trial(0)
    until(sweep.trial(2) / "fold_0", job)
    job.kill()
    assert sweep.states() == ["COMPLETE", "FAIL", "RUNNING"]
    first = (sweep.trial(0) / "summary.json").stat().st_mtime_ns
    time.sleep(0.5)  # the processes of the trial are killed with the one that started them
    assert sweep.start("sweep", f"resume={sweep.output}").end() == 1, sweep.log.read_text()[-5000:]

    assert sweep.states() == ["COMPLETE", "FAIL", "COMPLETE"]
    assert (sweep.trial(0) / "summary.json").stat().st_mtime_ns == first
    study, scores = sweep.study(), {}
    for number in (0, 2):
        dice = json.loads((sweep.trial(number) / "summary.json").read_text())["metrics"]["dice"]["mean"]
        assert study.trials[number].value == dice
        scores[number] = dice
        tree = yaml.safe_load((sweep.trial(number) / "experiment.yaml").read_text())
        assert tree["optimizer"]["lr"] == study.trials[number].params["optimizer.lr"]
    reason = study.trials[1].user_attrs["reason"]
    assert "the loss is nan" in reason and "exit status 2" in reason, reason
    with (sweep.output / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete", "fail", "complete"]
    assert rows[1]["reason"] == reason

    runs = tracked(sweep.database)
    assert runs == {
        "sweep": ("FINISHED", None),
        "0000": ("FINISHED", "sweep"),
        "0000/fold 0": ("FINISHED", "0000"),
        "0001": ("FAILED", "sweep"),
        "0001/fold 0": ("FAILED", "0001"),
        "0002": ("FINISHED", "sweep"),
        "0002/fold 0": ("FINISHED", "0002"),
    }

    best = max(scores, key=lambda number: scores[number])
    content = yaml.safe_load((sweep.output / "best" / "experiment" / "best.yaml").read_text())
    assert content["optimizer"]["lr"] == study.trials[best].params["optimizer.lr"]
    for name in ("history.png",):
        assert (sweep.output / "figures" / name).stat().st_size > 5000
    assert json.loads((sweep.output / "report.json").read_text())["optimism"]["best"] == pytest.approx(scores[best])


def best_tree(arguments: list[str]) -> Any:
    from pipeline.config.compose import compose
    from pipeline.config.schema import TrainConfig
    from pipeline.config.validate import validate

    folders = [Path(arguments[1])] if arguments[:1] == ["--config-dir"] else []
    return validate(compose("train", arguments[2 * len(folders) :], config_dirs=folders), TrainConfig).tree


@pytest.mark.slow
def test_two_processes_prune_and_end_with_as_many_as_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "sweep.space={optimizer.lr: {choice: [0.004, 1.0e-9]}, network.width: {int: [2, 4], step: 2}}"
    pruning = ["sweep.pruning.method=median", "sweep.pruning.startup=2", "sweep.pruning.warmup=1"]
    sweep = Sweep(tmp_path, space, "sweep.trials=6", "sweep.sampler=random", "schedule.epochs=300", *pruning)
    one = sweep.start()
    until(sweep.output / "study.db", one)
    other = sweep.start()
    assert one.end(600) == 0, sweep.log.read_text()[-5000:]
    assert other.end(60) == 0, sweep.log.read_text()[-5000:]
    states = sweep.states()
    assert len(states) == 6
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert "PRUNED" in states
    runs = tracked(sweep.database)
    for number, state in enumerate(states):
        assert runs[f"{number:04d}"] == ({"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[state], "sweep")
        assert (sweep.trial(number) / "summary.json").exists() == (state == "COMPLETE")
    # The best as an experiment is the configuration that its trial had.
    number = sweep.study().best_trial.number
    again = best_tree(["--config-dir", str(sweep.output / "best"), "experiment=best"])
    was = yaml.safe_load((sweep.trial(number) / "experiment.yaml").read_text())
    left_out = ("output", "cache", "resume", "launch", "tracking", "plan", "planning")
    assert {k: v for k, v in again.items() if k not in left_out} == {k: v for k, v in was.items() if k not in left_out}
    capsys.readouterr()
    assert main(["report", f"run={sweep.output}"]) == 0
    assert "optimistic" in capsys.readouterr().out
    assert main(["sync", f"run={sweep.output}"]) == 0
