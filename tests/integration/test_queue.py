"""Jobs on this machine, as real processes: how many at once, on which cores, again after a loss, stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.launch import Local
from pipeline.launch.job import Job
from pipeline.launch.local import visible_gpus
from pipeline.launch.queue import Entry, Queue
from tests.clusters import odd_environment, odd_folder, quoted, shell, tells_environment

SAVES = "trap 'echo saved; exit 143' TERM; "


class Listed:
    """A list of jobs; done is what ended with 0."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = list(jobs)
        self.gave_up: list[tuple[str, int | None]] = []

    def next(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def ended(self, job: Job, status: int | None) -> bool:
        return status == 0

    def failed(self, job: Job, status: int | None) -> None:
        self.gave_up.append((job.name, status))


def local(jobs: int, **options: int) -> Local:
    engine = Local(**options)
    engine.expect(jobs)
    return engine


def run(source: Listed, engine: Local, retries: int = 0, stop_when: Path | None = None) -> dict[str, Entry]:
    queue = Queue(source, engine, retries=retries, poll=0.02, grace=10)
    entries = queue.run(lambda entries: None, lambda: stop_when is not None and stop_when.exists())
    return {entry.job.name: entry for entry in entries}


def test_never_more_at_once_than_there_are_places(tmp_path: Path) -> None:
    count = f"""
mkdir {quoted(tmp_path)}/running_$$
ls -d {quoted(tmp_path)}/running_* | wc -l >> {quoted(tmp_path)}/counts
sleep 0.2
rmdir {quoted(tmp_path)}/running_$$
"""
    source = Listed(*(shell(tmp_path, count, f"job_{n}") for n in range(6)))
    found = run(source, local(6, processes=2, cores=1))
    assert [entry.state for entry in found.values()] == ["done"] * 6
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert len(counts) == 6 and max(counts) == 2


def test_cores_are_divided(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    engine = local(2)
    each = len(cores) // 2
    script = "grep Cpus_allowed_list /proc/self/status; sleep 0.3"
    found = run(Listed(shell(tmp_path, script, "a"), shell(tmp_path, script, "b")), engine)
    assert (engine.at_once, engine.cores) == (2, each)
    told = [entry.job.log.read_text().split(":")[1].strip() for entry in found.values()]
    assert len(set(told)) == 2  # no core is shared
    with pytest.raises(UserError, match="this machine has"):
        local(1, processes=2, cores=len(cores))
    with pytest.raises(UserError, match="this machine has"):
        local(1, gpus=len(visible_gpus()) + 1)


def test_environment_and_log(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path)
    (folder / "tells.log").write_text("before\n")
    found = run(Listed(tells_environment(folder), shell(folder, "echo out; echo err >&2; exit 7")), local(1))
    assert found["tells"].state == "done" and found["fold_0"].status == 7
    assert (folder / "fold_0.log").read_text() == "out\nerr\n"
    text = (folder / "environment.json").read_text()
    assert all(name in text for name in odd_environment())
    assert (folder / "tells.log").read_text() == "before\n"


def test_a_lost_job_is_started_again_and_a_mistake_is_not(tmp_path: Path) -> None:
    once = f"if mkdir {quoted(tmp_path / 'been')}; then kill -9 $$; fi"
    source = Listed(
        shell(tmp_path, once, "lost"), shell(tmp_path, "exit 2", "mistake"), shell(tmp_path, "exit 9", "bad")
    )
    found = run(source, local(3), retries=2)
    assert {name: (entry.state, entry.tries, entry.status) for name, entry in found.items()} == {
        "lost": ("done", 2, 0),
        "mistake": ("failed", 1, 2),
        "bad": ("failed", 3, 9),
    }
    assert sorted(source.gave_up) == [("bad", 9), ("mistake", 2)]


def test_stopping_lets_jobs_save(tmp_path: Path) -> None:
    sign = tmp_path / "runs"
    saves = f"{SAVES} touch {quoted(sign)}; while :; do sleep 0.05; done"
    source = Listed(shell(tmp_path, saves, "a"), shell(tmp_path, "true", "never"))
    found = run(source, local(1, processes=1), stop_when=sign)
    assert (found["a"].state, found["a"].status) == ("stopped", 143)
    assert found["a"].job.log.read_text() == "saved\n"
    assert "never" not in found


def test_jobs_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    sign = tmp_path / "pid"
    child = os.fork()
    if child == 0:  # pragma: no cover
        engine = local(1, processes=1)
        engine.submit_all(
            [shell(tmp_path, f"echo $$ > {quoted(sign)}.new; mv {quoted(sign)}.new {quoted(sign)}; sleep 60")]
        )
        time.sleep(60)
        os._exit(0)
    while not sign.exists():
        time.sleep(0.02)
    job = int(sign.read_text())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 10
    while _lives(job):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
