"""Processes that die, compete or fork while they are tracked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import store_uri, sync

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for the module: creating it takes seconds."""
    return store_uri(None, tmp_path_factory.mktemp("store") / "mlflow.db")


@pytest.fixture
def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def points(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))


def run_child(folder: Path, lines: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", lines], cwd=folder, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("connected", "left"), [(True, 0), (False, 2)])
def test_runs_are_ended_when_nobody_closes(tmp_path: Path, uri: str, client: Any, connected: bool, left: int) -> None:
    child = run_child(
        tmp_path,
        f"""
from pathlib import Path
from pipeline.tracking import Tracker
tracker = Tracker(Path("run"), uri={uri!r}, experiment="end", flush_timeout_s=60)
tracker.start_run("parent", "x", parent=None, tags={{}}, params={{}})
if {connected}:
    tracker.flush()
raise ValueError("a fault")
""",
    )
    assert child.wait(60) == 1
    report = sync(tmp_path / "run")
    assert report.events == left
    assert client.get_run(report.run_ids["parent"]).info.status == "FAILED"


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 1.2])
def test_sync_after_sigkill(tmp_path: Path, uri: str, client: Any, wait_s: float) -> None:
    child = run_child(
        tmp_path,
        f"""
import time
from pathlib import Path
from pipeline.tracking import Tracker
tracker = Tracker(Path("run"), uri={uri!r}, experiment="kill", flush_timeout_s=60)
tracker.start_run("parent", "x", parent=None, tags={{}}, params={{"lr": 0.1}})
tracker.flush()
print("go", flush=True)
for step in range(100000):
    tracker.log_metrics("parent", {{"loss": step / 7}}, step=step)
    if step % 50 == 0:
        Path("run/last.ckpt").write_text(str(step))
        tracker.log_artifact("parent", Path("run/last.ckpt"))
    time.sleep(0.0005)
""",
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "go\n"
    time.sleep(wait_s)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    output = tmp_path / "run"
    with (output / "tracking" / "events.jsonl").open("ab") as journal:
        journal.write(b'{"event":"metrics","run":"par')  # a line torn by a power failure
    report = sync(output)
    assert report.ended == ("parent",)
    assert report.refused == ()
    lines = [json.loads(line) for line in (output / "tracking" / "events.jsonl").read_text().splitlines()]
    expected = [(line["step"], line["values"]["loss"]) for line in lines if line["event"] == "metrics"]
    assert points(client, report.run_ids["parent"], "loss") == expected
    run = client.get_run(report.run_ids["parent"])
    assert run.info.status == "KILLED"
    assert len(client.search_runs([run.info.experiment_id], f"tags.`pipeline.output` = '{output}'")) == 1
    assert sync(output).events == 0


def test_two_processes_create_and_fill_one_store(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = store_uri(None, tmp_path / "shared.db")
    lines = f"""
import sys
from pathlib import Path
from pipeline.tracking import Tracker
with Tracker(Path(sys.argv[0] + NAME), uri={uri!r}, experiment="both", flush_timeout_s=60) as tracker:
    tracker.start_run("parent", NAME, parent=None, tags={{}}, params={{}})
    for step in range(300):
        tracker.log_metrics("parent", {{"loss": step}}, step)
        if step % 30 == 0:
            tracker.flush()
"""
    children = [run_child(tmp_path, f"NAME = {name!r}\n{lines}") for name in ("one", "two")]
    assert [child.wait(120) for child in children] == [0, 0]
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("both")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["one", "two"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert points(client, run.info.run_id, "loss") == [(step, step) for step in range(300)]


def test_forked_workers_live_while_mlflow_is_imported(tmp_path: Path) -> None:
    child = run_child(
        tmp_path,
        f"""
import os, signal, sys, time
from pathlib import Path
from pipeline.tracking import Tracker
tracker = Tracker(Path("run"), uri={store_uri(None, tmp_path / "fork.db")!r}, experiment="fork", flush_timeout_s=0.0)
while "mlflow" not in sys.modules:
    time.sleep(0.001)
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    import mlflow.tracking, mlflow.entities
    os._exit(0)
tracker.close()
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
    )
    assert child.wait(60) == 0
