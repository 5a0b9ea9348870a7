"""Jobs through a real Ray cluster of two nodes of this machine, started by scripts/cluster/ray."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.launch import Ray
from tests.clusters import (
    cluster,
    ended,
    odd_environment,
    odd_folder,
    quoted,
    run_here,
    running,
    shell,
    submit,
    tells_environment,
    until,
)

pytestmark = pytest.mark.cluster
SAVES = "trap 'echo saved; exit 143' TERM; "
WAITS = "while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    cluster("ray", "start")
    with pytest.MonkeyPatch.context() as patch:
        for setting in shlex.split(cluster("ray", "env"))[1:]:
            patch.setenv(*setting.split("=", 1))
        engine = Ray("auto", cores=1, stop_seconds=20)
        yield engine
        engine.close()
    cluster("ray", "stop")


def test_exit_statuses_and_logs(tmp_path: Path, ray: Ray) -> None:
    folder = odd_folder(tmp_path)
    (folder / "fold_0.log").write_text("before\n")
    jobs = [
        shell(folder, "echo out; echo err >&2"),
        shell(folder, "exit 7", "fold_1"),
        shell(folder, "kill $$", "fold_2"),
    ]
    assert run_here(ray, *jobs) == [0, 7, 143]
    assert (folder / "fold_0.log").read_text() == "before\nout\nerr\n"


def test_environment_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: Ray) -> None:
    folder = odd_folder(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OF_THE_SUBMITTER", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert run_here(ray, tells_environment(folder)) == [0]
    told = json.loads((folder / "environment.json").read_text())
    assert {name: told[name] for name in odd_environment()} == odd_environment()
    assert told["folder"] == str(folder)
    assert told["OF_THE_SUBMITTER"] == "1"
    assert told.get("CUDA_VISIBLE_DEVICES", "") == ""


def test_one_job_a_core_and_cancel(tmp_path: Path, ray: Ray) -> None:
    signs = [tmp_path / f"runs_{n}" for n in range(3)]
    jobs = [
        submit(ray, shell(tmp_path, f"{SAVES} touch {quoted(sign)}; {WAITS}", f"fold_{n}"))
        for n, sign in enumerate(signs)
    ]
    until(lambda: sorted(job.state() for job in jobs) == ["running", "running", "waiting"])
    last = next(job for job in jobs if job.state() == "waiting")
    last.cancel()
    assert ended(last) is None
    others = [(job, sign) for job, sign in zip(jobs, signs, strict=True) if job is not last]
    for job, sign in others:
        running(job, sign)
        job.cancel()
    for job, sign in others:
        assert ended(job) == 143
        assert (tmp_path / f"fold_{signs.index(sign)}.log").read_text() == "saved\n"


@pytest.mark.parametrize("killed", ["worker", "command"])
def test_lost_jobs_have_no_exit_status(tmp_path: Path, ray: Ray, killed: str) -> None:
    sign, parent = tmp_path / "command", tmp_path / "worker"
    job = submit(ray, shell(tmp_path, f"echo $PPID >{parent}; echo $$ >{sign}.new; mv {sign}.new {sign}; {WAITS}"))
    running(job, sign)
    command = int(sign.read_text())
    os.kill(int(parent.read_text()) if killed == "worker" else command, signal.SIGKILL)
    assert ended(job) is None
    until(lambda: not Path(f"/proc/{command}").exists())


LOCAL = """
import sys
from pathlib import Path
from pipeline.launch import Ray
from tests.clusters import run_here, shell, submit
folder = Path(sys.argv[1])
try:
    submit(Ray("local", cores=1000), shell(folder, "true"))
except Exception as error:
    print(error)
engine = Ray("local")
print(run_here(engine, shell(folder, "ss -ltn > listens; exit 3")))
engine.close()
"""


def test_a_cluster_of_this_machine_alone(tmp_path: Path) -> None:
    """In a process of its own: Ray reads some of its settings when it is imported."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, "-c", LOCAL, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "asks for 1000 of CPU, and this machine has" in done.stdout
    assert done.stdout.splitlines()[-1] == "[3]"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "no Ray cluster there"),
        ("ray://127.0.0.1:10001", "only the processes"),
        ("somewhere", "neither local nor auto"),
    ],
)
def test_no_cluster(tmp_path: Path, address: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        submit(Ray(address), shell(tmp_path, "true"))


def test_a_node_that_dies(tmp_path: Path, ray: Ray) -> None:
    """Last: afterwards the cluster has one node."""
    folder = Path(os.environ.get("PIPELINE_CLUSTER", "/tmp/pipeline-cluster")) / "ray"
    signs = [tmp_path / f"runs_{n}" for n in range(2)]
    jobs = [
        submit(ray, shell(tmp_path, f"echo $$ >{sign}.new; mv {sign}.new {sign}; {WAITS}", f"fold_{n}"))
        for n, sign in enumerate(signs)
    ]
    for job, sign in zip(jobs, signs, strict=True):
        running(job, sign)
    leader = int((folder / "worker.pid").read_text())
    for process in Path("/proc").glob("[0-9]*"):  # the machine goes: all of its processes at once
        try:
            session = os.getsid(int(process.name))
        except ProcessLookupError:
            continue
        if session == leader:
            os.kill(int(process.name), signal.SIGKILL)
    until(lambda: "ended" in [job.state() for job in jobs], 120)
    lost = next(job for job in jobs if job.state() == "ended")
    assert lost.exit_status() is None
    other = next(job for job in jobs if job is not lost)
    assert other.state() == "running"
    other.cancel()
    assert ended(other) == 143
    assert run_here(ray, shell(tmp_path, "exit 4", "again")) == [4]
