"""Tracking against a real ``mlflow server`` on loopback, which comes late, goes away and comes back."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import Tracker, find_run_folder, sync

pytestmark = pytest.mark.slow


class Server:
    """An MLflow server with one worker, started and stopped at will; its data stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        artifacts = ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options, *store, *artifacts],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def client_of(server: Server) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=server.uri)


def points(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))


def test_server_restarted_in_the_middle(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "run"
    with (
        caplog.at_level(logging.INFO),
        Tracker(output, uri=server.uri, experiment="outage", flush_timeout_s=60) as tracker,
    ):
        tracker.start_run("parent", "cv", parent=None, tags={"host": "a"}, params={"lr": 0.1})
        tracker.start_run("fold_0", "fold 0", parent="parent", tags={}, params={})
        (output / "checkpoints").mkdir()
        slowest = 0.0
        for step in range(3000):
            began = time.perf_counter()
            tracker.log_metrics("fold_0", {"loss": step / 3, "nan": float("nan")}, step)
            if step % 300 == 0:
                (output / "checkpoints" / f"{step}.ckpt").write_bytes(os.urandom(2_000_000))
                tracker.log_artifact("fold_0", output / "checkpoints" / f"{step}.ckpt", "checkpoints")
            slowest = max(slowest, time.perf_counter() - began)
            if step == 1000:
                assert tracker.flush()
            elif step == 1100:
                server.stop()
            elif step == 2000:
                assert not tracker.flush(20)
                server.start()
            time.sleep(0.0005)
        assert slowest < 1.0
    ids = tracker.run_ids()
    client = client_of(server)
    assert points(client, ids["fold_0"], "loss") == [(step, step / 3) for step in range(3000)]
    assert len(points(client, ids["fold_0"], "nan")) == 3000
    found = sorted(file.path for file in client.list_artifacts(ids["fold_0"], "checkpoints"))
    assert found == sorted(f"checkpoints/{step}.ckpt" for step in range(0, 3000, 300))
    assert client.get_run(ids["fold_0"]).data.tags["mlflow.parentRunId"] == ids["parent"]
    assert {client.get_run(run_id).info.status for run_id in ids.values()} == {"FINISHED"}
    assert len(client.search_runs([tracker.experiment_id])) == 2
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "is back" in caplog.text
    assert sync(output).events == 0

    output.rename(tmp_path / "elsewhere")
    folder = find_run_folder(ids["parent"], server.uri)
    original = (tmp_path / "elsewhere" / "checkpoints" / "0.ckpt").read_bytes()
    assert (folder / "fold_0" / "checkpoints" / "0.ckpt").read_bytes() == original


def test_server_down_for_good_then_sync(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "run"
    server.stop()
    with Tracker(output, uri=server.uri, experiment="late", flush_timeout_s=1) as tracker:
        tracker.start_run("parent", "cv", parent=None, tags={}, params={"lr": 0.1})
        for step in range(2500):
            tracker.log_metrics("parent", {"loss": step / 3}, step)
        (output / "summary.json").write_text("{}")
        tracker.log_artifact("parent", output / "summary.json")
    assert tracker.run_ids() == {}
    server.start()
    done: list[tuple[int, int]] = []
    report = sync(output, progress=lambda part, whole: done.append((part, whole)))
    assert report.events == 2503
    assert done[-1][0] == done[-1][1]
    client = client_of(server)
    assert points(client, report.run_ids["parent"], "loss") == [(step, step / 3) for step in range(2500)]
    assert [file.path for file in client.list_artifacts(report.run_ids["parent"])] == ["summary.json"]
    assert client.get_run(report.run_ids["parent"]).info.status == "FINISHED"
    assert sync(output).events == 0


def test_a_server_that_accepts_and_never_answers_holds_nothing_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with Tracker(tmp_path, uri=uri, experiment="silent", flush_timeout_s=1) as tracker:
            tracker.start_run("parent", "cv", parent=None, tags={}, params={})
        assert time.monotonic() - began < 6
