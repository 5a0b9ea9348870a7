"""Tracking under load: many runs at once record into one MLflow server with PostgreSQL; is all of it there, and when.

    python scripts/bench/tracking_load.py --runs 16 --metrics 200 --steps 1000

Starts a server of its own (scripts/cluster/mlflow) and removes it. Every run is a process with a tracker of its own,
which records as fast as it can. Then every point is read back from the server: none missing, none twice, none altered.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

CLUSTER = Path(__file__).resolve().parents[1] / "cluster" / "mlflow"
PICTURE_STEPS = 4  # in each run, evenly


def value_of(run: int, metric: int, step: int) -> float:
    """Different for every point, and exact in a double."""
    return run * 1024 + metric + step / 4096


def record(run: int, output: Path, uri: str, metrics: int, steps: int, limit_s: float, results: Any) -> None:
    """What one training does: metrics of every step, pictures now and then, and an end."""
    from PIL import Image

    from pipeline.tracking import Tracker

    began = time.monotonic()
    tracker = Tracker(output, uri=uri, experiment="load", flush_timeout_s=60)
    key = f"run_{run}"
    tracker.start_run(key, key, parent=None, tags={"load": "yes"}, params={"run": run, "steps": steps})
    slowest = 0.0
    for step in range(steps):
        called = time.perf_counter()
        tracker.log_metrics(key, {f"metric_{m:03d}": value_of(run, m, step) for m in range(metrics)}, step)
        if step % max(1, steps // PICTURE_STEPS) == 0:
            path = output / f"picture_{step:05d}.png"
            Image.effect_noise((256, 256), 40).save(path)
            tracker.log_artifact(key, path, "pictures")
        slowest = max(slowest, time.perf_counter() - called)
    recorded = time.monotonic()
    tracker.end_run(key, "FINISHED")
    while not tracker.flush(5) and time.monotonic() - began < limit_s:
        time.sleep(1)
    there = time.monotonic()
    tracker.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    results.put(
        {
            "run": run,
            "id": tracker.run_ids()[key],
            "record_s": recorded - began,
            "there_s": there - began,
            "slowest_call_s": slowest,
            "client_cpu_s": used.ru_utime + used.ru_stime,
            "journal_bytes": (output / "tracking" / "events.jsonl").stat().st_size,
        }
    )


@contextmanager
def server(workers: int, artifacts: str) -> Iterator[Path]:
    """A server with an empty database; its address and credentials are in the environment, its folder is given."""
    with tempfile.TemporaryDirectory(prefix="tracking_load_", dir="/tmp") as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "server"
        command = [sys.executable, str(CLUSTER)]
        options = ["--data", str(folder)]
        environment = {**os.environ, "PYTHON": sys.executable}
        start = [*command, "start", *options, "--workers", str(workers), "--artifacts", artifacts]
        subprocess.run(start, env=environment, check=True, stdout=sys.stderr)
        try:
            told = subprocess.run([*command, "env", *options], check=True, capture_output=True, text=True).stdout
            for line in told.splitlines():
                name, _, value = line.removeprefix("export ").partition("=")
                os.environ[name] = value.strip("'")
            yield folder
        finally:
            subprocess.run([*command, "remove", *options], check=True)


def cpu_seconds(pid: int) -> float:
    """Of a process, those below it now, and those of theirs that ended."""
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def server_cpu(folder: Path) -> dict[str, float]:
    """CPU seconds so far of MLflow and of PostgreSQL."""
    return {
        "mlflow": cpu_seconds(int((folder / "server.pid").read_text().split()[0])),
        "postgres": cpu_seconds(int((folder / "postgres" / "postmaster.pid").read_text().split()[0])),
    }


def read_back(ids: dict[int, str], uri: str, metrics: int, steps: int) -> dict[str, int]:
    """Every point of every run, as the server tells it, against what was recorded."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = {"points": 0, "missing": 0, "twice": 0, "altered": 0, "pictures": 0, "runs_not_finished": 0}

    def history(run: int, metric: int) -> list[tuple[int, float]]:
        points = client.get_metric_history(ids[run], f"metric_{metric:03d}")
        return [(point.step, point.value) for point in points]

    with ThreadPoolExecutor(4) as pool:
        wanted = [(run, metric) for run in ids for metric in range(metrics)]
        for (run, metric), points in zip(wanted, pool.map(lambda pair: history(*pair), wanted), strict=True):
            by_step = dict(points)
            found["points"] += len(points)
            found["twice"] += len(points) - len(by_step)
            found["missing"] += steps - len(by_step)
            found["altered"] += sum(value != value_of(run, metric, step) for step, value in points)
    for run_id in ids.values():
        found["pictures"] += len(client.list_artifacts(run_id, "pictures"))
        found["runs_not_finished"] += client.get_run(run_id).info.status != "FINISHED"
    experiment = client.get_experiment_by_name("load")
    assert experiment is not None
    found["runs"] = len(client.search_runs([experiment.experiment_id], max_results=1000))
    return found


def load(folder: Path, runs: int, metrics: int, steps: int, limit_s: float) -> dict[str, Any]:
    """Let all of them record at once, wait, read back; the figures."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.tracking", "pipeline.tracking"])
    before = server_cpu(folder)
    with tempfile.TemporaryDirectory() as outputs:
        results = context.Queue()
        began = time.monotonic()
        processes = [
            context.Process(target=record, args=(run, Path(outputs) / str(run), uri, metrics, steps, limit_s, results))
            for run in range(runs)
        ]
        for process in processes:
            process.start()
        told = sorted((results.get(timeout=limit_s + 120) for _ in processes), key=lambda result: result["run"])
        seconds = time.monotonic() - began
        for process in processes:
            process.join()
    after = server_cpu(folder)
    began = time.monotonic()
    found = read_back({result["run"]: result["id"] for result in told}, uri, metrics, steps)
    points = runs * metrics * steps
    return {
        "runs": runs,
        "metrics": metrics,
        "steps": steps,
        "points": points,
        "seconds_until_all_is_there": round(seconds, 1),
        "points_per_s": round(points / seconds),
        "recording_s": round(max(result["record_s"] for result in told), 2),
        "slowest_call_s": round(max(result["slowest_call_s"] for result in told), 3),
        "client_cpu_s": round(sum(result["client_cpu_s"] for result in told), 1),
        "mlflow_cpu_s": round(after["mlflow"] - before["mlflow"], 1),
        "postgres_cpu_s": round(after["postgres"] - before["postgres"], 1),
        "journal_mb": round(sum(result["journal_bytes"] for result in told) / 1e6, 1),
        "reading_back_s": round(time.monotonic() - began, 1),
        "found": found,
    }


def complete(figures: dict[str, Any]) -> bool:
    """Whether nothing is lost and nothing is there twice."""
    found = figures["found"]
    pictures = len(range(0, figures["steps"], max(1, figures["steps"] // PICTURE_STEPS))) * figures["runs"]
    return bool(
        found["points"] == figures["points"]
        and not found["missing"] + found["twice"] + found["altered"] + found["runs_not_finished"]
        and found["pictures"] == pictures
        and found["runs"] == figures["runs"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--metrics", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    parser.add_argument("--artifacts", choices=["folder", "s3"], default="folder")
    parser.add_argument("--limit", type=float, default=1500, help="s until a run gives up waiting")
    given = parser.parse_args()
    with server(given.workers, given.artifacts) as folder:
        figures = load(folder, given.runs, given.metrics, given.steps, given.limit)
    print(json.dumps(figures, indent=1))
    print("nothing lost, nothing twice" if complete(figures) else "NOT complete")
    return 0 if complete(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
