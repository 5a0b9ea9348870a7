"""Jobs through a real Slurm of this machine, started by scripts/cluster/slurm."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.launch import Slurm
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
from tests.integration.generated import hippocampus

pytestmark = pytest.mark.cluster
# The shell tells on standard error that the signal, which every process of a step gets, ended its sleep.
SAVES = "exec 2>/dev/null; trap 'sleep 3; echo saved; exit 138' USR1; trap 'sleep 3; echo saved; exit 143' TERM; "
WAITS = "while :; do sleep 0.1; done"


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    cluster("slurm", "start")
    conf = re.search(r"SLURM_CONF=(\S+)", cluster("slurm", "env"))
    assert conf is not None
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = conf[1]
    yield
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before
    cluster("slurm", "stop")


def engine(**options: object) -> Slurm:
    return Slurm(**{"hours": 0.1, "poll_seconds": 0.5, **options})  # type: ignore[arg-type]


def pid_in(file: Path) -> int:
    return int(file.read_text())


def test_exit_statuses_and_logs(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path)
    (folder / "fold_0.log").write_text("before\n")
    slurm = engine()
    jobs = [
        shell(folder, "echo out; echo err >&2"),
        shell(folder, "exit 7", "fold_1"),
        shell(folder, "kill $$", "fold_2"),
    ]
    assert run_here(slurm, *jobs) == [0, 7, 143]
    assert (folder / "fold_0.log").read_text() == "before\nout\nerr\n"
    missing = shell(folder, "", "fold_3")
    assert run_here(slurm, type(missing)("fold_3", ("/no/such/program",), missing.log)) == [127]
    assert "/no/such/program" in missing.log.read_text()


def test_environment_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = odd_folder(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OF_THE_SUBMITTER", "1")
    assert run_here(engine(), tells_environment(folder)) == [0]
    told = json.loads((folder / "environment.json").read_text())
    assert {name: told[name] for name in odd_environment()} == odd_environment()
    assert told["folder"] == str(folder)
    assert told["OF_THE_SUBMITTER"] == "1"
    kept = {"SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_CONF"}
    assert {name for name in told if name.startswith("SLURM")} <= kept
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(told)


def test_several_tasks_are_one_torch_distributed(tmp_path: Path) -> None:
    script = 'echo "$RANK $LOCAL_RANK $NODE_RANK $WORLD_SIZE $MASTER_ADDR:$MASTER_PORT ${SLURM_PROCID-none}"'
    assert run_here(engine(tasks_per_node=2), shell(tmp_path, script)) == [0]
    lines = [(tmp_path / name).read_text().split() for name in ("fold_0.log", "fold_0.rank1.log")]
    assert [line[:4] for line in lines] == [["0", "0", "0", "2"], ["1", "1", "0", "2"]]
    assert lines[0][4] == lines[1][4]
    assert re.fullmatch(r"\S+:\d+", lines[0][4])
    assert lines[0][5] == lines[1][5] == "none"


def test_a_failing_task_ends_the_others(tmp_path: Path) -> None:
    script = f'[ "$RANK" = 0 ] || exit 5; {WAITS}'
    assert run_here(engine(tasks_per_node=2), shell(tmp_path, script)) == [5]


def test_array(tmp_path: Path) -> None:
    jobs = [shell(tmp_path, f"exit {n}", f"fold_{n}") for n in range(3)]
    submitted = engine(array_parallelism=1).submit_all(jobs)
    assert [ended(job) for job in submitted] == [0, 1, 2]
    assert len({job.id.split("_")[0] for job in submitted}) == 1


def test_cancel(tmp_path: Path) -> None:
    slurm = engine()
    sign = tmp_path / "runs"
    first = submit(slurm, shell(tmp_path, f"{SAVES} touch {quoted(sign)}; {WAITS}"))
    running(first, sign)
    blocked = submit(engine(cores=2), shell(tmp_path, "true", "fold_1"))
    assert blocked.state() == "waiting"
    blocked.cancel()
    assert ended(blocked) is None
    first.cancel()
    assert ended(first) == 143
    assert "saved" in (tmp_path / "fold_0.log").read_text()
    states = subprocess.run(["squeue", "--noheader", "--states=all", "--format=%i %T"], capture_output=True, text=True)
    assert f"{first.id} CANCELLED" in states.stdout  # and not back in the queue


@pytest.mark.parametrize("killed", ["job", "worker", "command"])
def test_lost_jobs_have_no_exit_status(tmp_path: Path, killed: str) -> None:
    sign, parent = tmp_path / "command", tmp_path / "worker"
    stays = "trap '' TERM; "  # what Slurm sends before SIGKILL
    job = submit(
        engine(), shell(tmp_path, f"{stays} echo $PPID >{parent}; echo $$ >{sign}.new; mv {sign}.new {sign}; {WAITS}")
    )
    running(job, sign)
    command = pid_in(sign)
    if killed == "job":
        subprocess.run(["scancel", "-s", "KILL", job.id], check=True)
    else:
        os.kill(pid_in(parent) if killed == "worker" else command, signal.SIGKILL)
    assert ended(job) is None
    until(lambda: not Path(f"/proc/{command}").exists())


@pytest.mark.parametrize("how", ["warned", "pre-empted"])
def test_asked_to_stop_a_job_goes_on_by_itself(tmp_path: Path, how: str) -> None:
    sign = tmp_path / "runs"
    script = f"if [ -e {sign} ]; then echo second $SLURM_RESTART_COUNT; exit 0; fi; {SAVES} touch {sign}; {WAITS}"
    job = submit(engine(cores=2), shell(tmp_path, script))
    running(job, sign)
    if how == "warned":
        subprocess.run(["scancel", "--signal=USR1", job.id], check=True)
    else:
        assert run_here(engine(cores=2, partition="urgent"), shell(tmp_path, "true", "urgent")) == [0]
    until(lambda: job.state() == "waiting")
    # Slurm keeps what was requeued from starting for two minutes.
    hasten = ["scontrol", "update", f"jobid={job.id}", "starttime=now"]
    until(lambda: subprocess.run(hasten, capture_output=True).returncode == 0)
    assert ended(job) == 0
    assert (tmp_path / "fold_0.log").read_text() == "saved\nsecond 1\n"


def test_requeued_no_more_often_than_allowed(tmp_path: Path) -> None:
    sign = tmp_path / "runs"
    job = submit(engine(requeues=0), shell(tmp_path, f"{SAVES} touch {sign}; {WAITS}"))
    running(job, sign)
    subprocess.run(["scancel", "--signal=USR1", job.id], check=True)
    assert ended(job) == 138


def test_a_run_that_is_not_waited_for_summarises_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hippocampus(tmp_path / "data")
    output = tmp_path / "run"
    short = ["experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "sampling.batch_size=2", "folds.count=2",
             "sampling.batches_per_epoch=2", "schedule.budget=null", "schedule.epochs=1", "trainer.validate_cases=1",
             "evaluation.figures=false", "tracking.enabled=false", "launch=slurm", "launch.engine.hours=0.2",
             "launch.engine.cores=1", f"data.root={tmp_path / 'data'}", f"cache={tmp_path / 'cache'}",
             f"output={output}"]  # fmt: skip
    assert main([*short, "launch.wait=false"]) == 0
    assert "fold_1: submitted as" in capsys.readouterr().out
    assert not (output / "summary.json").exists()
    until((output / "summary.json").exists, 300, lambda: [log.read_text() for log in (output / "jobs").glob("*.log")])
    assert len(json.loads((output / "summary.json").read_text())["folds"]) == 2


def test_mistakes_are_told(tmp_path: Path) -> None:
    job = shell(tmp_path, "true")
    with pytest.raises(UserError, match=r"did not take job fold_0.*partition") as mistake:
        submit(engine(partition="nowhere"), job)
    assert "sinfo" in str(mistake.value)
    (tmp_path / "50%j").mkdir()
    with pytest.raises(UserError, match="rename"):
        submit(engine(), shell(tmp_path / "50%j", "true"))


def test_describe(tmp_path: Path) -> None:
    text = engine(gpus=2, memory_gb=1.5, account="chest", sbatch={"constraint": "a100"}).describe(
        shell(tmp_path, "true", environment={"A": "b c"})
    )
    for part in ("--time=6", "--gpus-per-node=2", "--mem=1536M", "--account=chest", "--constraint=a100", "A='b c'"):
        assert part in text
    assert "--signal=USR1@120" in text
