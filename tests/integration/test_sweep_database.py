"""A sweep of several processes on one PostgreSQL study and one MLflow server, killed and gone on with."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

optuna = pytest.importorskip("optuna")

from tests.integration.generated import hippocampus  # noqa: E402
from tests.integration.test_sweep import TINY, tracked  # noqa: E402
from tests.integration.test_tracking_server import Server  # noqa: E402
from tests.processes import Job  # noqa: E402

pytestmark = pytest.mark.cluster
TRIALS = 12
SPACE = "sweep.space={optimizer.lr: {float: [1.0e-3, 1.0e-2], log: true}, network.width: {int: [2, 4], step: 2}}"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What a client of the server and of its database needs."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("PostgreSQL is not installed: scripts/cluster/mlflow install")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install -e '.[sweep]'")
    with tempfile.TemporaryDirectory(prefix="sweep_database_", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder, "server"), "folder")
        try:
            server.start()
            yield server.environment()
        finally:
            server.call("remove")


class Sweep:
    """Its folder, its database, and the processes that work on it."""

    def __init__(self, folder: Path, environment: dict[str, str], name: str, *overrides: str) -> None:
        hippocampus(folder / "data")
        self.output, self.log, self.environment = folder / "sweep", folder / "log.txt", environment
        subprocess.run(["createdb", name], env={"PATH": "/usr/bin:/bin", **environment}, check=True)
        self.address = f"postgresql://mlflow@{environment['PGHOST']}:{environment['PGPORT']}/{name}"
        places = [f"data.root={folder / 'data'}", f"cache={folder / 'cache'}", f"output={self.output}"]
        storage = ["tracking=server", f"tracking.experiment={name}", f"sweep.storage={self.address}"]
        self.command = ["sweep", *TINY, SPACE, "sweep.sampler=random", *places, *storage, *overrides]

    def worker(self) -> Job:
        return Job(self.command, self.log, environment=self.environment)

    def states(self) -> list[str]:
        found = optuna.storages.RDBStorage(self.address.replace("postgresql:", "postgresql+psycopg:"))
        study = optuna.load_study(study_name=None, storage=found)
        return [trial.state.name for trial in study.get_trials()]

    def wait_for(self, complete: int, *workers: Job) -> None:
        """Until so many trials are complete."""
        while len(list(self.output.glob("trials/*/summary.json"))) < complete:
            assert all(worker.wait(0.2) is None for worker in workers), self.log.read_text()[-4000:]


def test_killed_twice_ends_with_as_many_trials_as_were_asked_for(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sweep = Sweep(tmp_path, environment, "killed", f"sweep.trials={TRIALS}", "schedule.epochs=2")
    one = sweep.worker()
    one.wait_for(sweep.output / "sweep.json")
    two = sweep.worker()
    sweep.wait_for(2, one, two)
    one.kill()
    one = sweep.worker()
    sweep.wait_for(6, one, two)
    two.kill()
    one.kill()
    workers = [sweep.worker(), sweep.worker()]
    assert [worker.end(600) for worker in workers] == [0, 0], sweep.log.read_text()[-4000:]

    assert sweep.states() == ["COMPLETE"] * TRIALS
    trials = [f"{number:04d}" for number in range(TRIALS)]
    assert sorted(path.parent.name for path in sweep.output.glob("trials/*/summary.json")) == trials
    expected = {"sweep": ("FINISHED", None)}
    expected |= dict.fromkeys(trials, ("FINISHED", "sweep"))
    expected |= {f"{name}/fold 0": ("FINISHED", name) for name in trials}
    assert tracked(environment["MLFLOW_TRACKING_URI"]) == expected
    assert environment["MLFLOW_TRACKING_PASSWORD"] not in sweep.log.read_text()
    assert not any(
        environment["MLFLOW_TRACKING_PASSWORD"].encode() in path.read_bytes()
        for path in sweep.output.rglob("*")
        if path.is_file()
    )


def test_both_processes_of_a_trial_train_the_same(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "sweep.trials=2", "schedule.epochs=4"]
    sweep = Sweep(tmp_path, environment, "ranks", *two)
    worker = sweep.worker()
    seen: dict[str, dict[str, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))
    while worker.wait(0.0) is None:
        for process in psutil.Process(worker.pid).children(recursive=True):
            try:
                command, rank = tuple(process.cmdline()), process.environ().get("LOCAL_RANK", "0")
            except psutil.Error:
                continue
            if "train" in command:
                output = next(word for word in command if word.startswith("output="))
                seen[output][rank].add(command[command.index("train") :])
        time.sleep(0.1)
    assert worker.end() == 0, sweep.log.read_text()[-4000:]
    assert len(seen) == 2
    for ranks in seen.values():
        assert ranks.keys() == {"0", "1"}
        assert len(ranks["0"]) == 1 and ranks["0"] == ranks["1"]
    learned = [next(iter(ranks["0"])) for ranks in seen.values()]
    drawn = {next(word for word in command if word.startswith("optimizer.lr=")) for command in learned}
    assert len(drawn) == 2
