"""Tracking against a server as people stand it up: MLflow, PostgreSQL, authentication and, where it is installed, S3.

What it needs:  scripts/cluster/mlflow install --artifacts s3
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.tracking import Tracker, sync

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
S3 = Path(os.environ.get("PIPELINE_CLUSTER", "/tmp/pipeline-cluster"), "swift", "bin", "swift-proxy-server").is_file()
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class Server:
    """One of ``scripts/cluster/mlflow``, with its data in a folder that the user postgres can enter."""

    def __init__(self, folder: Path, artifacts: str = "folder") -> None:
        self.folder = folder
        self.artifacts = artifacts

    def call(self, command: str, *options: str) -> str:
        given = [sys.executable, str(SCRIPTS / "cluster" / "mlflow"), command, "--data", str(self.folder), *options]
        done = subprocess.run(given, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *options: str) -> None:
        self.call("start", "--artifacts", self.artifacts, "--workers", "1", *options)

    def environment(self) -> dict[str, str]:
        return exports(self.call("env"))

    @property
    def uri(self) -> str:
        return self.environment()["MLFLOW_TRACKING_URI"]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Not below pytest's folders, which nobody but their owner can enter."""
    with tempfile.TemporaryDirectory(prefix="tracking_server_", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("PostgreSQL is not installed")
    for module in ("psycopg", "flask_wtf", "boto3"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[server]'")
    server = Server(place / "server", "s3" if S3 else "folder")
    try:
        server.start()
        yield server
    finally:
        server.call("remove")


@pytest.fixture
def known(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of somebody whom the server knows."""
    environment = server.environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def exports(text: str) -> dict[str, str]:
    """The variables of lines for a shell."""
    lines = (line.removeprefix("export ").partition("=") for line in text.splitlines())
    return {name: shlex.split(value)[0] for name, _, value in lines}


def storage_of(server: Server) -> dict[str, str]:
    """What clients of the server's object store need."""
    command = [sys.executable, str(SCRIPTS / "cluster" / "s3"), "env", "--data", str(server.folder / "s3")]
    return exports(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def bucket_of(server: Server) -> Any:
    import boto3

    storage = storage_of(server)
    return boto3.client(
        "s3",
        endpoint_url=storage["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=storage["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=storage["AWS_SECRET_ACCESS_KEY"],
        region_name=storage["AWS_DEFAULT_REGION"],
    )


def keys(bucket: Any) -> list[str]:
    pages = bucket.get_paginator("list_objects_v2").paginate(Bucket="mlflow")
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def record(output: Path, uri: str, experiment: str, wait_s: float = 60, **more: Any) -> Tracker:
    with Tracker(output, uri=uri, experiment=experiment, flush_timeout_s=wait_s, **more) as tracker:
        tracker.start_run("parent", "cv", parent=None, tags={"host": "a"}, params={"lr": 0.1})
        tracker.start_run("fold_0", "fold 0", parent="parent", tags={}, params={"depth": 3})
        for step in range(120):
            tracker.log_metrics("fold_0", {"loss": step / 3, "dice": float("nan")}, step)
        (output / "figures").mkdir(exist_ok=True)
        (output / "figures" / "large.bin").write_bytes(os.urandom(9_000_000))  # more than S3 takes in one part
        (output / "figures" / "curve é.png").write_bytes(b"png")
        tracker.log_artifact("parent", output / "figures", "figures")
    return tracker


def check(client: Any, ids: dict[str, str], output: Path, target: Path) -> None:
    history = client.get_metric_history(ids["fold_0"], "loss")
    assert sorted((point.step, point.value) for point in history) == [(step, step / 3) for step in range(120)]
    assert len(client.get_metric_history(ids["fold_0"], "dice")) == 120
    assert client.get_run(ids["parent"]).data.params == {"lr": "0.1"}
    assert {client.get_run(run_id).info.status for run_id in ids.values()} == {"FINISHED"}
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    client.download_artifacts(ids["parent"], "figures", str(target))
    for file in (output / "figures").iterdir():
        assert (target / "figures" / file.name).read_bytes() == file.read_bytes()


def test_credentials_come_from_the_environment_and_stay_there(
    server: Server,
    known: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    password = known["MLFLOW_TRACKING_PASSWORD"]
    output = tmp_path / "run"
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    with caplog.at_level(logging.INFO):
        record(output, server.uri, "credentials", wait_s=4)
    assert "Credentials: set MLFLOW_TRACKING_USERNAME" in caplog.text
    monkeypatch.chdir(tmp_path)
    assert main(["sync", f"run={output}", "tracking=server"]) == 2
    assert "Credentials: set MLFLOW_TRACKING_USERNAME" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert main(["sync", f"run={output}", "tracking=server"]) == 0
    assert "0 entries" not in capsys.readouterr().out
    ids = sync(output).run_ids
    check(client_of(server.uri), ids, output, tmp_path / "download")
    # The same in the address: used, and written nowhere.
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("://", f"://admin:{password}@"))
    again = record(tmp_path / "again", os.environ["MLFLOW_TRACKING_URI"], "credentials")
    assert sorted(again.run_ids()) == ["fold_0", "parent"]
    assert sync(tmp_path / "again", os.environ["MLFLOW_TRACKING_URI"]).events == 0
    said = capsys.readouterr()
    assert password not in caplog.text + said.out + said.err
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or password.encode() not in file.read_bytes(), file


def test_nothing_is_lost_or_doubled_under_load(server: Server, known: dict[str, str]) -> None:
    """The short form of ``scripts/bench/tracking_load.py``."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import tracking_load as t\n"
        "if __name__ == '__main__':\n"
        "    figures = t.load(Path(sys.argv[2]), runs=4, metrics=30, steps=60, limit_s=120); print(figures)\n"
        "    sys.exit(not t.complete(figures))\n"
    )
    path = server.folder.parent / "load.py"
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, str(path), str(SCRIPTS / "bench"), str(server.folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not S3, reason="no S3-compatible store: scripts/cluster/s3 install")
def test_artifacts_are_in_the_object_store(
    server: Server, known: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = record(tmp_path / "proxied", server.uri, "proxied")
    check(client_of(server.uri), tracker.run_ids(), tmp_path / "proxied", tmp_path / "download")
    bucket = bucket_of(server)
    run = tracker.run_ids()["parent"]
    assert f"{tracker.experiment_id}/{run}/artifacts/figures/large.bin" in keys(bucket)
    # Past the server, straight into the bucket, for a new experiment.
    for name, value in storage_of(server).items():
        monkeypatch.setenv(name, value)
    direct = record(tmp_path / "direct", server.uri, "direct", artifacts="s3://mlflow/straight")
    check(client_of(server.uri), direct.run_ids(), tmp_path / "direct", tmp_path / "download")
    assert f"straight/direct/{direct.run_ids()['parent']}/artifacts/figures/large.bin" in keys(bucket)
    assert client_of(server.uri).get_experiment(direct.experiment_id).artifact_location == "s3://mlflow/straight/direct"


def test_a_backup_restored_elsewhere_has_everything(
    server: Server, known: dict[str, str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/operations.md."""
    tracker = record(tmp_path / "run", server.uri, "backup")
    for database in ("mlflow", "mlflow_auth"):
        subprocess.run(["pg_dump", "--format=custom", f"--file={tmp_path / database}.dump", database], check=True)
    saved = tmp_path / "artifacts"
    if S3:
        bucket = bucket_of(server)
        for key in keys(bucket):
            (saved / key).parent.mkdir(parents=True, exist_ok=True)
            bucket.download_file("mlflow", key, str(saved / key))
    else:
        shutil.copytree(server.folder / "artifacts", saved)
    server.call("stop")
    other = Server(place / "other", server.artifacts)
    try:
        other.start("--database-only")
        new = other.environment()
        for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSFILE"):
            monkeypatch.setenv(name, new[name])
        for database in ("mlflow", "mlflow_auth"):
            restore = ["pg_restore", "--clean", "--if-exists", f"--dbname={database}", f"{tmp_path / database}.dump"]
            subprocess.run(restore, check=True)
        address = f"postgresql://mlflow@{new['PGHOST']}:{new['PGPORT']}/mlflow"
        subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", address], check=True, capture_output=True)
        server.folder.rename(place / "gone")
        other.start()
        if S3:
            bucket = bucket_of(other)
            for file in saved.rglob("*"):
                if file.is_file():
                    bucket.upload_file(str(file), "mlflow", file.relative_to(saved).as_posix())
        else:
            shutil.copytree(saved, other.folder / "artifacts", dirs_exist_ok=True)
        # Its users and passwords are those of the backup, of which the environment still has one.
        check(client_of(new["MLFLOW_TRACKING_URI"]), tracker.run_ids(), tmp_path / "run", tmp_path / "download")
        more = record(tmp_path / "more", new["MLFLOW_TRACKING_URI"], "backup")
        assert more.experiment_id == tracker.experiment_id
    finally:
        other.call("remove")
        (place / "gone").rename(server.folder)
        server.start()
