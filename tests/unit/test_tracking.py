from __future__ import annotations

import json
import logging
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.tracking import Tracker, find_run_folder, open_page_command, store_uri, sync
from pipeline.tracking.journal import Journal
from pipeline.tracking.lock import Lock
from pipeline.tracking.names import check_run_key, flat_params, metric_name
from pipeline.tracking.secrets import mask, mask_command
from pipeline.tracking.uri import artifact_root


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for the module, in a folder whose name is awkward: creating it takes seconds."""
    folder = tmp_path_factory.mktemp("stores") / "a b é #1+"
    folder.mkdir()
    return store_uri(None, folder / "mlflow.db")


@pytest.fixture
def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def points(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))


def start(tracker: Tracker, **params: object) -> None:
    tracker.start_run("parent", "lung_unet", parent=None, tags={"git.commit": "abc"}, params=params)
    tracker.start_run("fold_0", "fold 0", parent="parent", tags={}, params={})


def run_child(folder: Path, lines: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", lines], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_everything_arrives_once(tmp_path: Path, uri: str, client: Any) -> None:
    output = tmp_path / "run"
    with Tracker(output, uri=uri, experiment="lung/unet é", flush_timeout_s=60) as tracker:
        start(tracker, network={"depth": 5, "name": "unet"}, seeds=[1, 2], long="x" * 7000, password="hunter2")
        for epoch in range(1500):
            tracker.log_metrics("fold_0", {"loss": 1.0 / (epoch + 1), "dice[lung]": epoch / 1500}, step=epoch)
        tracker.log_metrics("fold_0", {"odd": float("nan")}, step=0)
        (output / "fold_0" / "checkpoints").mkdir(parents=True)
        (output / "fold_0" / "checkpoints" / "best.ckpt").write_bytes(b"weights")
        (output / "figures").mkdir()
        (output / "figures" / "best.png").write_bytes(b"png")
        (output / "summary.json").write_text("{}")
        tracker.log_artifact("fold_0", output / "fold_0" / "checkpoints" / "best.ckpt", "checkpoints")
        tracker.log_artifact("parent", output / "summary.json")
        tracker.log_artifact("parent", output / "figures", "figures")
        tracker.set_tags("parent", {"data_hash": "123"})
        tracker.end_run("fold_0", "FINISHED")
        assert tracker.flush()
        ids = tracker.run_ids()
        assert tracker.experiment_id is not None
    parent, fold = client.get_run(ids["parent"]), client.get_run(ids["fold_0"])
    assert (parent.info.status, fold.info.status) == ("FINISHED", "FINISHED")
    assert (parent.info.run_name, fold.info.run_name) == ("lung_unet", "fold 0")
    assert fold.data.tags["mlflow.parentRunId"] == ids["parent"]
    assert parent.data.tags["git.commit"] == "abc"
    assert parent.data.tags["data_hash"] == "123"
    assert parent.data.tags["pipeline.output"] == str(output)
    assert parent.data.params["network.depth"] == "5"
    assert parent.data.params["seeds"] == "[1, 2]"
    assert parent.data.params["password"] == "***"
    assert len(parent.data.params["long"]) == 6000
    assert points(client, ids["fold_0"], "loss") == [(epoch, 1.0 / (epoch + 1)) for epoch in range(1500)]
    assert points(client, ids["fold_0"], "dice/lung") == [(epoch, epoch / 1500) for epoch in range(1500)]
    assert len(points(client, ids["fold_0"], "odd")) == 1
    assert [file.path for file in client.list_artifacts(ids["fold_0"], "checkpoints")] == ["checkpoints/best.ckpt"]
    assert [file.path for file in client.list_artifacts(ids["parent"])] == ["figures", "summary.json"]
    assert [file.path for file in client.list_artifacts(ids["parent"], "figures")] == ["figures/best.png"]
    artifacts = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert (artifacts / "lung_unet_é" / ids["parent"] / "artifacts" / "summary.json").is_file()
    assert "hunter2" not in (output / "tracking" / "events.jsonl").read_text()
    assert sync(output).events == 0


def test_reopening_continues_the_same_runs(tmp_path: Path, uri: str, client: Any) -> None:
    with Tracker(tmp_path, uri=uri, experiment="resume", flush_timeout_s=60) as tracker:
        start(tracker, lr=0.1)
        tracker.log_metrics("fold_0", {"loss": 1.0, "bad": float("nan")}, step=0)
        tracker.log_metrics("fold_0", {"loss": 0.5}, step=1)
    first = tracker.run_ids()
    with Tracker(tmp_path, uri=uri, experiment="resume", flush_timeout_s=60) as tracker:
        start(tracker, lr=0.2, depth=3)
        tracker.log_metrics("fold_0", {"loss": 0.5, "bad": float("nan")}, step=1)
        tracker.log_metrics("fold_0", {"loss": 0.25}, step=2)
        assert tracker.flush()
        assert client.get_run(first["fold_0"]).info.status == "RUNNING"
    assert tracker.run_ids() == first
    assert points(client, first["fold_0"], "loss") == [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert len(points(client, first["fold_0"], "bad")) == 2
    run = client.get_run(first["parent"])
    assert run.data.params == {"lr": "0.1", "depth": "3"}
    assert run.data.tags["changed.lr"] == "0.2"
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_runs_are_ended_after_an_error(
    tmp_path: Path, uri: str, client: Any, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), Tracker(tmp_path, uri=uri, experiment="end", flush_timeout_s=60) as tracker:
        start(tracker)
        raise error
    assert [client.get_run(run_id).info.status for run_id in tracker.run_ids().values()] == [status, status]


def test_a_lost_position_records_nothing_twice(tmp_path: Path, uri: str, client: Any) -> None:
    with Tracker(tmp_path, uri=uri, experiment="replay", flush_timeout_s=60) as tracker:
        start(tracker, lr=0.1)
        for step in range(10):
            tracker.log_metrics("fold_0", {"loss": step}, step)
    (tmp_path / "tracking" / "sent.json").unlink()
    report = sync(tmp_path, uri)
    assert report.events == 14
    assert report.run_ids == tracker.run_ids()
    assert points(client, report.run_ids["fold_0"], "loss") == [(step, step) for step in range(10)]
    assert client.get_run(report.run_ids["fold_0"]).info.status == "FINISHED"


def test_progress_is_kept_amid_many_points(
    tmp_path: Path, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tracking.sender.MOST_POINTS", 200)
    with Tracker(tmp_path, uri="http://127.0.0.1:9", experiment="many", flush_timeout_s=0) as tracker:
        start(tracker)
        for step in range(100):
            tracker.log_metrics("fold_0", {f"m_{number}": step + number / 8 for number in range(10)}, step)
    kept: list[int] = []
    report = sync(tmp_path, uri, progress=lambda done, _: kept.append(done))
    assert len(set(kept)) >= 5 and kept == sorted(kept)
    for number in (0, 9):
        found = points(client, report.run_ids["fold_0"], f"m_{number}")
        assert found == [(step, step + number / 8) for step in range(100)]


def test_artifacts_of_a_new_experiment_go_where_they_should(
    tmp_path: Path, uri: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = artifact_root(str(tmp_path / "far away"))
    for _ in range(2):
        with Tracker(tmp_path / "run", uri=uri, experiment="placed é", flush_timeout_s=60, artifacts=root) as tracker:
            start(tracker)
            (tmp_path / "run" / "summary.json").write_text("{}")
            tracker.log_artifact("parent", tmp_path / "run" / "summary.json")
    run = tracker.run_ids()["parent"]
    assert (tmp_path / "far away" / "placed_é" / run / "artifacts" / "summary.json").is_file()
    assert not caplog.records
    with Tracker(tmp_path / "other", uri=uri, experiment="placed é", flush_timeout_s=60, artifacts="s3://b") as tracker:
        start(tracker)
    assert "is there already, and keeps its artifacts in file:///" in caplog.text


def test_a_store_without_the_runs_gets_everything(tmp_path: Path, uri: str, client: Any) -> None:
    with Tracker(tmp_path, uri=uri, experiment="lost", flush_timeout_s=60) as tracker:
        start(tracker, lr=0.1)
        tracker.log_metrics("fold_0", {"loss": 3.0}, 0)
    state = tmp_path / "tracking" / "sent.json"
    content = json.loads(state.read_text())
    content["runs"] = {"parent": "0" * 32, "fold_0": "1" * 32}
    state.write_text(json.dumps(content))
    report = sync(tmp_path)
    assert report.run_ids == tracker.run_ids()
    assert points(client, report.run_ids["fold_0"], "loss") == [(0, 3.0)]


def test_copies_of_a_run_are_deleted_and_deleted_runs_come_back(tmp_path: Path, uri: str, client: Any) -> None:
    with Tracker(tmp_path, uri=uri, experiment="copies", flush_timeout_s=60) as tracker:
        start(tracker)
    ids = tracker.run_ids()
    parent = client.get_run(ids["parent"])
    copy = client.create_run(parent.info.experiment_id, tags={"pipeline.run_key": parent.data.tags["pipeline.run_key"]})
    client.delete_run(ids["parent"])
    with Tracker(tmp_path, uri=uri, experiment="copies", flush_timeout_s=60) as tracker:
        start(tracker)
    assert client.get_run(ids["parent"]).info.lifecycle_stage == "active"
    assert client.get_run(copy.info.run_id).info.lifecycle_stage == "deleted"


def test_unreachable_server_stops_nothing(
    tmp_path: Path, uri: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        closed = f"http://me:hunter2@127.0.0.1:{held.getsockname()[1]}"
        began = time.monotonic()
        with caplog.at_level(logging.INFO):
            tracker = Tracker(tmp_path, uri=closed, experiment="down", flush_timeout_s=2.5)
            start(tracker)
            for step in range(1000):
                tracker.log_metrics("fold_0", {"loss": step}, step)
            assert time.monotonic() - began < 1.0
            assert not tracker.flush()
            closing = time.monotonic()
            tracker.close("FINISHED")
            assert time.monotonic() - closing < 3.5
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2
    assert "Training goes on" in warnings[0]
    assert f"python -m pipeline sync run={tmp_path}" in warnings[1]
    assert "hunter2" not in "".join(warnings) + tracker.uri
    assert all(b"hunter2" not in file.read_bytes() for file in (tmp_path / "tracking").iterdir())
    report = sync(tmp_path, uri)
    assert points(client, report.run_ids["fold_0"], "loss") == [(step, step) for step in range(1000)]
    assert client.get_run(report.run_ids["parent"]).info.status == "FINISHED"


def test_a_second_tracker_is_refused(tmp_path: Path, uri: str) -> None:
    lock = Lock(tmp_path / "tracking" / "lock")
    lock.path.parent.mkdir()
    child = run_child(
        tmp_path,
        """
import time
from pathlib import Path
from pipeline.tracking.lock import Lock
lock = Lock(Path("tracking/lock"))
assert lock.acquire(0)
print("held", flush=True)
time.sleep(60)
""",
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert not lock.acquire(0)
    assert lock.holder().startswith(f"process {child.pid} on ")
    child.kill()
    child.wait()
    child.stdout.close()
    assert lock.acquire(5)
    assert not Lock(tmp_path / "tracking" / "lock").acquire(0)
    lock.release()


def test_refused_entries_do_not_stop_the_rest(tmp_path: Path, uri: str, client: Any) -> None:
    with Tracker(tmp_path, uri=uri, experiment="refused", flush_timeout_s=60) as tracker:
        start(tracker)
        tracker.log_artifact("parent", tmp_path / "never_written.json")
        tracker.log_metrics("parent", {"dice": 0.9}, 0)
    assert points(client, tracker.run_ids()["parent"], "dice") == [(0, 0.9)]
    assert "never_written.json" in sync(tmp_path).refused[0]


def test_a_store_that_is_no_database_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").write_text("no database " * 1000)
    tracker = Tracker(tmp_path, uri=store_uri(None, tmp_path / "mlflow.db"), experiment="x", flush_timeout_s=0.5)
    start(tracker)
    assert not tracker.flush(10)
    tracker.close()
    assert "not a database" in caplog.text


def test_wrong_use_is_an_error(tmp_path: Path, uri: str) -> None:
    with Tracker(tmp_path / "run", uri=uri, experiment="wrong", flush_timeout_s=60) as tracker:
        start(tracker)
        with pytest.raises(ValueError, match="not in the run folder"):
            tracker.log_artifact("parent", tmp_path / "elsewhere.txt")
        with pytest.raises(ValueError, match="not running"):
            tracker.log_metrics("fold_1", {"loss": 1.0}, 0)
        with pytest.raises(ValueError, match="parent"):
            tracker.start_run("fold_1", "x", parent="nobody", tags={}, params={})
        with pytest.raises(ValueError, match="run key"):
            tracker.start_run("../fold", "x", parent=None, tags={}, params={})
    with pytest.raises(UserError, match="not a run folder"):
        sync(tmp_path)


def test_find_run_folder(tmp_path: Path, uri: str) -> None:
    output = tmp_path / "run"
    with Tracker(output, uri=uri, experiment="find", flush_timeout_s=60) as tracker:
        start(tracker)
        (output / "fold_0" / "checkpoints").mkdir(parents=True)
        (output / "fold_0" / "checkpoints" / "best.ckpt").write_bytes(b"weights")
        (output / "config.yaml").write_text("seed: 1\n")
        (output / "figures").mkdir()
        (output / "figures" / "curve.png").write_bytes(b"png")
        tracker.log_artifact("fold_0", output / "fold_0" / "checkpoints", "checkpoints")
        tracker.log_artifact("parent", output / "config.yaml")
        tracker.log_artifact("parent", output / "figures", "figures")
    ids = tracker.run_ids()
    assert find_run_folder(ids["parent"], uri) == output
    assert find_run_folder(ids["fold_0"], uri) == output
    output.rename(tmp_path / "moved")
    found = find_run_folder(ids["fold_0"], uri)
    files = sorted(file.relative_to(found).as_posix() for file in found.rglob("*") if file.is_file())
    assert files == ["config.yaml", "fold_0/checkpoints/best.ckpt"]
    assert (found / "fold_0" / "checkpoints" / "best.ckpt").read_bytes() == b"weights"
    with pytest.raises(UserError, match="no run"):
        find_run_folder("0" * 32, uri)


def test_journal_survives_a_full_disk(tmp_path: Path) -> None:
    import resource

    journal = Journal(tmp_path / "events.jsonl")
    journal.append({"event": "tags", "n": 1})
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 5, before[1]))
        journal.append({"event": "tags", "n": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [event["n"] for event in journal] == [1]
    journal.append({"event": "tags", "n": 3})
    assert [event["n"] for event in journal] == [1, 2, 3]
    journal.close()


def test_journal_keeps_lines_whole_under_threads(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")

    def write(writer: int) -> None:
        for number in range(300):
            journal.append({"event": "tags", "writer": writer, "number": number})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(event["writer"], event["number"]) for event in journal} == {(w, n) for w in range(4) for n in range(300)}
    some = journal.read(0, most=10)
    assert len(some) == 10
    assert journal.read(some[-1][1], most=10_000)[-1][1] == journal.size
    journal.close()


def test_names() -> None:
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH, _validate_metric_name

    from pipeline.tracking.names import PARAM_LENGTH, TAG_LENGTH

    assert PARAM_LENGTH <= MAX_PARAM_VAL_LENGTH and TAG_LENGTH <= MAX_TAG_VAL_LENGTH
    assert metric_name("dice[left lung]") == "dice/left lung"
    assert metric_name("f1 (macro) %") == "f1 _macro_ _"
    for name in ("dice[lung]", "", "/", "../x", "a//b", "x" * 400, "肺[左]", "a\nb", "[x]", "a=b,c"):
        _validate_metric_name(metric_name(name))
        assert 0 < len(metric_name(name)) <= 250
    assert metric_name("x" * 400) != metric_name("x" * 401)
    assert flat_params({"a": {"b": 1, "c": {}}, "api_key": "k", "n_tokens": 3}) == {
        "a.b": "1",
        "a.c": "{}",
        "api_key": "***",
        "n_tokens": "3",
    }
    assert check_run_key("trial_3/fold_0") == "trial_3/fold_0"
    for key in ("..", "a/../b", "/a", "a b", "", "a/"):
        with pytest.raises(ValueError, match="run key"):
            check_run_key(key)


def test_secrets() -> None:
    assert mask("see http://me:p@w:d@host:5000/x now") == "see http://me:***@host:5000/x now"
    assert mask("postgresql://u:pw@h/db?sslmode=on&password=pw") == "postgresql://u:***@h/db?sslmode=on&password=***"
    assert mask("sqlite:////home/me@home/a:b@c.db") == "sqlite:////home/me@home/a:b@c.db"
    assert mask_command(["--token", "t1", "data.password=t2", "lr=1", "uri=http://a:t3@h"]) == [
        "--token",
        "***",
        "data.password=***",
        "lr=1",
        "uri=http://a:***@h",
    ]


def test_store_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri(None, Path("mlflow.db")) == f"sqlite:///{tmp_path}/mlflow.db"
    assert store_uri("sqlite:///x/a.db", Path("b")) == f"sqlite:///{tmp_path}/x/a.db"
    assert store_uri("sqlite:////x/a.db", Path("b")) == "sqlite:////x/a.db"
    assert store_uri("https://host/mlflow", Path("b")) == "https://host/mlflow"
    assert store_uri("postgresql+psycopg://u:p@h/db", Path("b")) == "postgresql+psycopg://u:p@h/db"
    for wrong in (
        "./mlruns",
        "file:///x",
        "http://",
        "host:5000",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///a?b",
        "sqlite:///a%20b",
    ):
        with pytest.raises(UserError):
            store_uri(wrong, Path("b"))


def test_open_page_command() -> None:
    words = shlex.split(open_page_command("sqlite:////a b/mlflow.db"))
    assert words[1:] == ["-m", "mlflow", "ui", "--backend-store-uri", "sqlite:////a b/mlflow.db"]
    assert open_page_command("http://me:pw@host:5000/x").endswith(" -m webbrowser http://host:5000/x")


def test_a_part_waits_for_the_run_it_belongs_to(tmp_path: Path, uri: str, client: Any) -> None:
    options = {"uri": uri, "experiment": "parts", "flush_timeout_s": 60}
    with (
        Tracker(tmp_path, **options) as whole,
        Tracker(tmp_path, **options, part=tmp_path / "fold_0") as part,
    ):
        part.start_run("fold_0", "fold 0", parent=whole.run("parent"), tags={}, params={})
        part.log_metrics("fold_0", {"loss": 1.0}, 0)
        assert not part.flush(2)
        assert not part.run_ids()
        whole.start_run("parent", "whole", parent=None, tags={}, params={})
        assert part.flush()
        assert client.get_run(part.run_ids()["fold_0"]).data.tags["mlflow.parentRunId"] == whole.run_ids()["parent"]
    (tmp_path / "tracking" / "sent.json").unlink()
    (tmp_path / "fold_0" / "tracking" / "sent.json").unlink()
    again = sync(tmp_path, uri)
    assert again.run_ids == {**whole.run_ids(), **part.run_ids()}
    assert points(client, again.run_ids["fold_0"], "loss") == [(0, 1.0)]
