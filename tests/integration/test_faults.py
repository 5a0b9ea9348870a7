"""Real faults: signals, a full disk, no memory, a lost worker, a lost rank, damaged files, two runs at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient

from tests.integration.generated import hippocampus
from tests.processes import Job
from tests.torture.killing import COMMON, compare

SMALL = ["experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "network.width=4", *COMMON, "folds.run=[0]"]


class Place:
    """A folder with data, and jobs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        hippocampus(folder / "data")

    def command(self, output: Path | str, *overrides: str) -> list[str]:
        """A small training into ``output``."""
        given = [f"data.root={self.folder / 'data'}", f"cache={self.folder / 'cache'}", "tracking.enabled=false"]
        return [*SMALL, *given, f"output={output}", *overrides]

    def job(self, output: Path | str, *overrides: str, **how: object) -> Job:
        """Start it, with an empty log."""
        self.log.unlink(missing_ok=True)
        return Job(self.command(output, *overrides), self.log, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> Path:
    output = place.folder / "undisturbed"
    assert place.job(output).end() == 0, place.log.read_text()
    return output


LONG = "schedule.epochs=500"
MEMORY = 1_500_000_000  # bytes beyond what the imports take
LARGE = ["sampling.patch_size=[32,32,32]", "sampling.batch_size=48",
         "sampling.batches_per_epoch=1", "schedule.epochs=1",
         "network=nnunet", "network.width=16", "engine.keep_memory=false", "trainer.precision=32"]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)], ids=lambda x: str(x)
)
def test_signals_stop_where_training_can_be_gone_on_from(
    place: Place, undisturbed: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    output, store = tmp_path / "run", f"sqlite:///{tmp_path / 'mlflow.db'}"
    recorded = ["tracking.enabled=true", f"tracking.uri={store}"]
    job = place.job(output, "checkpoint.every=1h", "checkpoint.share=0", *recorded)  # saves only because it is asked to
    job.wait_for(output / "fold_0" / "metrics.csv")
    os.kill(job.pid, number)
    assert job.end() == status, job.said()
    assert "Traceback" not in job.said()
    assert f"python -m pipeline train resume={output}" in job.said()
    client = MlflowClient(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert {run.info.status for run in client.search_runs(experiments)} == {"KILLED"}
    assert Job(["train", f"resume={output}"], place.log).end() == 0, place.log.read_text()
    compare(undisturbed, output)
    assert {run.info.status for run in client.search_runs(experiments)} == {"FINISHED"}
    assert len(client.search_runs(experiments)) == 2  # parent and fold


def test_a_second_ctrl_c_leaves_at_once(place: Place, tmp_path: Path) -> None:
    """While a step of seconds goes on, so that the first one cannot have stopped it."""
    job = place.job(tmp_path / "run", *LARGE, "sampling.batch_size=16", "sampling.batches_per_epoch=1000")
    points = tmp_path / "run" / "fold_0" / "resume"
    while not list(points.glob("step_*.ckpt")):
        assert job.wait(0.05) is None, job.said()
    os.kill(job.pid, signal.SIGINT)
    while "Once more leaves at once" not in job.said():
        assert job.wait(0.01) is None, job.said()
    os.kill(job.pid, signal.SIGINT)
    assert job.end() == 130
    assert "To go on" not in job.said()  # nothing was finished first


def test_a_damaged_checkpoint_is_passed_over(place: Place, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    job = place.job(output, "checkpoint.every=0s")
    points = output / "fold_0" / "resume"
    while len(list(points.glob("step_*.ckpt.sha256"))) < 2:
        assert job.wait(0.005) is None, job.said()
    job.kill()
    newest = max(points.glob("step_*.ckpt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    assert place.job(output, "resume=auto").end() == 0, place.log.read_text()
    assert f"{newest} cannot be used" in place.log.read_text()
    compare(undisturbed, output)


def test_changed_settings_are_refused_by_name(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "run"
    job = place.job(output, LONG)
    job.wait_for(output / "fold_0" / "metrics.csv")
    job.kill()
    assert place.job(output, "resume=auto", LONG, "optimizer.lr=0.5").end() == 2
    said = place.log.read_text()
    assert "optimizer.lr" in said
    assert "0.5 now" in said
    assert "resume.allow=[optimizer.lr]" in said
    assert "schedule.epochs" not in said
    allowed = ["resume.allow=[optimizer.lr,schedule]", "optimizer.lr=0.5", "schedule.epochs=20"]
    assert Job(["train", f"resume={output}", *allowed], place.log).end() == 0, place.log.read_text()
    rates = [float(line.split(",")[3]) for line in (output / "fold_0" / "metrics.csv").read_text().splitlines()[1:]]
    assert max(rates) > 0.1  # and not the rate of the checkpoint
    assert json.loads((output / "provenance.json").read_text())["resumed"]


def test_other_data_are_refused(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.folder / "data", tmp_path / "data")
    output, root = tmp_path / "run", f"data.root={tmp_path / 'data'}"
    job = place.job(output, LONG, root)
    job.wait_for(output / "fold_0" / "metrics.csv")
    job.kill()
    files = sorted((tmp_path / "data" / "imagesTr").iterdir())
    shutil.copy(files[0], files[1])
    labels = sorted((tmp_path / "data" / "labelsTr").iterdir())
    shutil.copy(labels[0], labels[1])
    assert Job(["train", f"resume={output}", "check.near_duplicate_bits=null"], place.log).end() == 2
    said = place.log.read_text()
    assert "hippocampus_001" in said


def test_a_run_that_is_killed_as_it_begins_can_be_gone_on_with(place: Place, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    job = place.job(output)
    job.wait_for(output / "provenance.json")
    job.kill()
    assert (output / "manifest.csv").is_file()  # what files and folds are compared with
    assert place.job(output, "resume=auto").end() == 0, place.log.read_text()
    compare(undisturbed, output)


def test_two_runs_at_once_do_not_mix(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = place.job(output, LONG)
    first.wait_for(output / "fold_0" / "metrics.csv")
    second = Job(place.command(output), tmp_path / "second.txt")
    assert second.end() == 2
    assert f"{output} is in use by process {first.pid}" in second.said()
    third = Job(["train", f"resume={output}"], tmp_path / "third.txt")
    assert third.end() == 2
    assert "is in use by process" in third.said()
    assert first.wait(0) is None
    first.kill()


def test_a_loss_that_is_not_finite_stops_with_the_cases(place: Place, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    wild = ["optimizer=sgd", "optimizer.lr=1e30", "schedule=constant", "schedule.budget=null", "schedule.epochs=5"]
    recorded = ["tracking.enabled=true", f"tracking.uri={store}"]
    assert place.job(tmp_path / "run", *wild, "trainer.ema_decay=null", *recorded).end() == 2
    said = place.log.read_text()
    assert "Traceback" not in said
    assert "hippocampus_0" in said
    (kept,) = (tmp_path / "run" / "fold_0" / "not_finite").iterdir()
    batch = np.load(kept, allow_pickle=False)
    assert batch["image"].shape == (2, 1, 16, 24, 16)
    assert all(case in said for case in batch["case_id"])
    client = MlflowClient(store)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FAILED"}


def test_a_loss_that_is_not_finite_can_be_skipped(place: Place, tmp_path: Path) -> None:
    wild = ["optimizer=sgd", "optimizer.lr=1e30", "schedule=constant", "schedule.budget=null", "schedule.epochs=2"]
    assert place.job(tmp_path / "run", *wild, "trainer.ema_decay=null", "on_nan=skip").end() == 0, place.log.read_text()
    fold = json.loads((tmp_path / "run" / "summary.json").read_text())["folds"][0]
    assert fold["skipped_steps"] == 11  # all but the first
    assert "step left out" in place.log.read_text()


def test_a_lost_worker_is_told_with_its_cases(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "run"
    job = place.job(output, LONG, "trainer.workers=2", "sampling.batches_per_epoch=100000")  # one long epoch
    points = output / "fold_0" / "resume"
    while not any(int(path.stem.partition("_")[2]) >= 6 for path in points.glob("step_*.ckpt")):  # both have begun
        assert job.wait(0.05) is None, job.said()
    workers = [child for child in psutil.Process(job.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert workers
    workers[-1].kill()
    assert job.end() == 2, job.said()
    assert "a data-loading worker ended unexpectedly at hippocampus_0" in job.said()
    assert "Traceback" not in job.said()


def test_too_little_memory_is_told_with_the_cases(place: Place, tmp_path: Path) -> None:
    assert place.job(tmp_path / "run", *LARGE, spare_memory=MEMORY).end() == 2, place.log.read_text()
    said = place.log.read_text()
    assert "out of memory in epoch 1, batch 1 at hippocampus_0" in said
    assert "Traceback" not in said


def test_a_batch_that_does_not_fit_is_computed_in_parts(place: Place, tmp_path: Path) -> None:
    small = place.job(tmp_path / "small", *LARGE, "engine.oom=shrink", spare_memory=MEMORY)
    assert small.end() == 0, small.said()
    assert "batches are computed in" in small.said()
    assert place.job(tmp_path / "large", *LARGE).end() == 0, place.log.read_text()
    losses = [
        float((tmp_path / name / "fold_0" / "metrics.csv").read_text().splitlines()[1].split(",")[4])
        for name in ("small", "large")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory that does not hold a run."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs rights that this user lacks")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def room(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def test_a_full_disk_stops_with_what_was_saved_whole(
    place: Place, undisturbed: Path, tmp_path: Path, small_disk: Path
) -> None:
    output = small_disk / "run"
    assert place.job(output).end() == 2, place.log.read_text()
    said = place.log.read_text()
    assert "the disk is full" in said
    assert "Traceback" not in said
    room(small_disk, "100m")
    assert place.job(output, "resume=auto").end() == 0, place.log.read_text()
    compare(undisturbed, output)


def test_a_full_disk_can_be_waited_for(place: Place, undisturbed: Path, tmp_path: Path, small_disk: Path) -> None:
    output = small_disk / "run"
    job = place.job(output, "checkpoint.on_full=wait")
    while "Waiting for room" not in (place.log.read_text() if place.log.exists() else ""):
        assert job.wait(0.1) is None, job.said()
    room(small_disk, "100m")
    assert job.end() == 0, job.said()
    compare(undisturbed, output)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_when_one_rank_is_lost_all_stop(place: Place, tmp_path: Path, lost: int) -> None:
    output = tmp_path / "run"
    many = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", LONG]
    command = [sys.executable, "-m", "pipeline", *place.command(output, *many)]  # which Lightning starts once more
    with place.log.open("w") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    begun = time.monotonic()
    while not (output / "fold_0" / "metrics.csv").exists():
        assert job.poll() is None and time.monotonic() - begun < 120, place.log.read_text()
        time.sleep(0.05)
    other = next(c for c in psutil.Process(job.pid).children() if "pipeline" in " ".join(c.cmdline()))
    begun = time.monotonic()
    os.kill([job.pid, other.pid][lost], signal.SIGKILL)
    assert job.wait(60) != 0, place.log.read_text()
    while other.is_running() and other.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - begun < 60
        time.sleep(0.2)
    assert list((output / "fold_0" / "resume").glob("step_*.ckpt"))


ODD = {
    "plain C locale": {"LC_ALL": "C", "LANG": "C"},
    "decimal comma": {"LC_ALL": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"},
    "far east": {"TZ": "Pacific/Kiritimati"},
    "read-only home": {"HOME": "/proc"},
}


@pytest.mark.parametrize("environment", ODD.values(), ids=ODD)
def test_odd_environments_change_nothing(
    place: Place, undisturbed: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    job = place.job(tmp_path / "run", environment=environment)
    assert job.end() == 0, job.said()
    compare(undisturbed, tmp_path / "run")


def test_odd_folders_change_nothing(place: Place, undisturbed: Path, tmp_path: Path) -> None:
    odd = tmp_path / "größe (1) с пробелом"
    odd.mkdir()
    elsewhere = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path
    job = place.job(odd / "run", environment={"TMPDIR": str(elsewhere)}, folder=odd)
    assert job.end() == 0, job.said()
    compare(undisturbed, odd / "run")
