"""Slurm and Ray on this machine, by the scripts that come with the project; tiny shell jobs for them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.launch.job import Engine, Job, Submitted

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "cluster"


def cluster(name: str, verb: str) -> str:
    """Run ``scripts/cluster/NAME VERB`` with the ray of this Python; what it prints."""
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [str(SCRIPTS / name), verb], env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(folder: Path, script: str, name: str = "fold_0", environment: Mapping[str, str] | None = None) -> Job:
    """A job that runs a shell script; its log is in ``folder``."""
    return Job(name, ("/bin/sh", "-c", script), folder / f"{name}.log", dict(environment or {}))


def until(condition: Callable[[], bool], seconds: float = 60.0, told: Callable[[], object] = str) -> None:
    """Wait for a condition; AssertionError, with what ``told`` gives, where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


def ended(submitted: Submitted, seconds: float = 90.0) -> int | None:
    """The exit status of a job that ends by itself."""
    until(lambda: submitted.state() == "ended", seconds, submitted.state)
    return submitted.exit_status()


def running(submitted: Submitted, sign: Path) -> None:
    """Wait until a job runs and has made the file ``sign``."""
    until(lambda: submitted.state() == "running" and sign.exists(), told=submitted.state)


def odd_folder(parent: Path) -> Path:
    """A folder whose name a shell or a batch system may stumble over."""
    folder = parent / "Läufe, it's $HOME & more"
    folder.mkdir()
    return folder


def odd_environment() -> dict[str, str]:
    """Values that a shell would change."""
    return {"ODD": "two words, a 'quote', \"another\", $HOME, `id`, a\nline, a=b, \u00e9\u4e2d, \\n, %j", "EMPTY": ""}


def tells_environment(folder: Path) -> Job:
    """A job that writes its environment and working folder, byte for byte."""
    code = "import os, json, sys; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ) | {'folder': os.getcwd()}))"
    command = (sys.executable, "-c", code, str(folder / "environment.json"))
    return Job("tells", command, folder / "tells.log", odd_environment())


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def submit(engine: Engine, job: Job) -> Submitted:
    """One job in the hands of an engine."""
    return engine.submit_all([job])[0]


def run_here(engine: Engine, *jobs: Job) -> list[int | None]:
    """Exit statuses of jobs submitted one by one."""
    submitted = [submit(engine, job) for job in jobs]
    return [ended(one) for one in submitted]
