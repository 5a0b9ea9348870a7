"""What calls to a tracking server cost: measured against a real one, with PostgreSQL, that nobody else uses."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracking_load import server_cpu

TAGS = 40  # of a run, as provenance_tags makes them
POINTS = (1, 1000)
BYTES = (20_000, 8_000_000)
RUNS = (0, 500)  # in the experiment, while it is searched


@dataclass(frozen=True)
class Costs:
    """Seconds of the server's CPU (MLflow and PostgreSQL together), by kind of call.

    ``point``, ``byte`` and ``known_run`` come on top: for each metric point of a batch, each byte of an artifact, and
    each run in the experiment that is searched.
    """

    batch: float
    point: float
    params: float
    create: float
    update: float
    get: float
    search: float
    known_run: float
    artifact: float
    byte: float

    def points(self, count: float) -> float:
        """One batch of so many metric points."""
        return self.batch + self.point * count

    def file(self, size: float) -> float:
        """One artifact of so many bytes."""
        return self.artifact + self.byte * size

    def searching(self, runs: float) -> float:
        """Finding a run by its key among so many."""
        return self.search + self.known_run * runs


class Meter:
    """Seconds of the server's CPU and of waiting for a call, the mean of many."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waited: dict[str, float] = {}

    def cost(self, name: str, call: Callable[[int], Any], count: int) -> float:
        call(-1)
        before = sum(server_cpu(self.folder).values())
        times = []
        for number in range(count):
            began = time.perf_counter()
            call(number)
            times.append(time.perf_counter() - began)
        self.waited[name] = statistics.median(times)
        return (sum(server_cpu(self.folder).values()) - before) / count


def measure(folder: Path, count: int = 50) -> tuple[Costs, dict[str, float]]:
    """The costs, and the median time of each call as a client sees it, s."""
    from mlflow.entities import Metric

    from pipeline.tracking.mlflow_store import RUN_KEY_TAG, MlflowStore

    store = MlflowStore(os.environ["MLFLOW_TRACKING_URI"])
    client = store._client
    meter = Meter(folder)
    experiment = store.experiment("costs")
    tags = {f"tag_{number}": "x" * 60 for number in range(TAGS)}

    def create(number: int) -> str:
        key = {RUN_KEY_TAG: f"{number}_{time.monotonic_ns()}/fold_0"}
        return str(client.create_run(experiment, tags=tags | key, run_name="fold 0").info.run_id)

    def search(_: int) -> None:
        store.runs_with_tag(experiment, RUN_KEY_TAG, "nobody/fold_0")

    searches = [meter.cost("search", search, count)]
    run = create(0)
    creating = meter.cost("create run", create, count)
    for number in range(RUNS[1] - count - 2):
        create(number)
    searches.append(meter.cost(f"search among {RUNS[1]} runs", search, count))
    metric_step = iter(range(10**9))

    def log(points: int) -> Callable[[int], None]:
        def call(_: int) -> None:
            step = next(metric_step)
            now = time.time_ns() // 1_000_000
            client.log_batch(run, metrics=[Metric(f"m_{m % 200}", 0.5, now, step + m // 200) for m in range(points)])
            for _ in range(points // 200):
                next(metric_step)

        return call

    batches = [meter.cost(f"batch of {points} points", log(points), count) for points in POINTS]
    parameters = meter.cost(
        "batch of 20 parameters",
        lambda number: store.log_params(run, {f"p_{number}_{p}_{time.monotonic_ns()}": "value" for p in range(20)}),
        count,
    )
    update = meter.cost("update run", lambda _: client.update_run(run, status="RUNNING"), count)
    get = meter.cost("get run", lambda _: client.get_run(run), count)
    artifacts = []
    for size in BYTES:
        path = folder / f"file_{size}"
        path.write_bytes(os.urandom(size))
        artifacts.append(
            meter.cost(f"artifact of {size} bytes", lambda _, path=path: store.log_artifact(run, path, "files"), 20)  # type: ignore[misc]
        )
        path.unlink()
    point = (batches[1] - batches[0]) / (POINTS[1] - POINTS[0])
    byte = (artifacts[1] - artifacts[0]) / (BYTES[1] - BYTES[0])
    costs = Costs(
        batch=batches[0] - point,
        point=point,
        params=parameters,
        create=creating,
        update=update,
        get=get,
        search=searches[0],
        known_run=max(0.0, searches[1] - searches[0]) / (RUNS[1] - RUNS[0]),
        artifact=artifacts[0] - byte * BYTES[0],
        byte=byte,
    )
    return costs, meter.waited
