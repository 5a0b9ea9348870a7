"""What Slurm runs for each task of a job, on the node: the command, warned in time and asked to be run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipeline.launch.process import CommandProcess

if TYPE_CHECKING:
    from submitit import JobEnvironment

WARNING = signal.SIGUSR1  # sent by Slurm so long before the end as --signal says
ANSWERS = (128 + signal.SIGUSR1, 128 + signal.SIGTERM)  # exit status of a command that stopped because it was asked to
LOST = 128 + signal.SIGKILL
# Of Slurm's variables those that do not describe the task: with the others Lightning takes the processes for tasks of
# srun, and requeues jobs by itself.
KEPT = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME")
OF_SLURM = ("SLURM_", "SLURMD_", "SRUN_", "PMI", "SUBMITIT_")


@dataclass(frozen=True)
class SlurmTask:
    """Runs a command, and leaves its exit status in ``statuses``; plain values, for it is pickled.

    Slurm sends SIGUSR1 and SIGTERM to the command itself, as to every process of a step. If that ends it and Slurm has
    not ended the job, the job is put back into the queue, at most ``requeues`` times: its next run goes on where the
    command has saved.
    """

    command: tuple[str, ...]
    log: str
    environment: Mapping[str, str]
    folder: str  # in which the command runs
    statuses: str
    requeues: int

    def __call__(self) -> None:
        from submitit import JobEnvironment

        here = JobEnvironment()
        left = status_file(Path(self.statuses), here.job_id, here.global_rank)
        left.unlink(missing_ok=True)  # that of a run before
        received: list[int] = []

        def receive(number: int, frame: FrameType | None) -> None:
            received.append(number)

        for number in (WARNING, signal.SIGTERM):  # in place of submitit's handlers
            signal.signal(number, receive)
        environment = {**command_environment(here), **self.environment}
        log, folder = self._log(here.global_rank), Path(self.folder)
        process = CommandProcess(self.command, log, environment, folder, apart=False)
        while not process.wait(0.5):
            pass
        status = LOST if process.status is None else process.status
        _leave(left, status)
        if not received:
            sys.exit(status)
        # Tasks that were asked end with 0: srun would take another status for a fault, and kill the tasks still saving.
        if status in ANSWERS and here.global_rank == 0 and not self._others_failed(here):
            self._requeue(left, status)

    def _others_failed(self, here: JobEnvironment | Any) -> bool:
        """Whether another task failed: then srun asked this one, to end it."""
        folder = Path(self.statuses)
        others = [read_status(status_file(folder, here.job_id, rank)) for rank in range(1, here.num_tasks)]
        return any(status not in (None, 0, *ANSWERS) for status in others)

    def _log(self, rank: int) -> Path:
        log = Path(self.log)
        return log if rank == 0 else log.with_name(f"{log.stem}.rank{rank}{log.suffix}")

    def _requeue(self, left: Path, status: int) -> None:
        job = os.environ["SLURM_JOB_ID"]
        runs = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        state = _output("squeue", "--noheader", f"--jobs={job}", "--format=%T")
        if state not in ("RUNNING", "SIGNALING"):
            print(f"not requeued: Slurm ends the job itself ({state})")
        elif runs >= self.requeues:
            print(f"not requeued: {runs} times before, launch.engine.requeues={self.requeues}")
        else:
            left.unlink()  # who looks while the job is between its runs is not to take it for ended
            if _output("scontrol", "requeue", job) is None:
                _leave(left, status)


def status_file(folder: Path, job: str, rank: int) -> Path:
    """Where a task leaves the exit status of its command."""
    return folder / f"{job}_{rank}.status"


def _leave(file: Path, status: int) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(f"{status}\n", encoding="ascii")
    partial.replace(file)


def read_status(file: Path) -> int | None:
    """What a task has left; None where it has left none."""
    try:
        return int(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def command_environment(here: JobEnvironment | Any) -> dict[str, str]:
    """The environment for the command of this task; with several tasks, what torch.distributed reads."""
    environment = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(OF_SLURM)}
    if here.num_tasks == 1:
        return environment
    from submitit.helpers import TorchDistributedEnvironment

    torch = TorchDistributedEnvironment()
    return environment | {
        "MASTER_ADDR": torch.master_addr,
        "MASTER_PORT": str(torch.master_port),
        "RANK": str(torch.rank),
        "LOCAL_RANK": str(torch.local_rank),
        "NODE_RANK": str(here.node),
        "WORLD_SIZE": str(torch.world_size),
        "LOCAL_WORLD_SIZE": str(torch.local_world_size),
    }


def _output(*command: str) -> str | None:
    """What a command prints, None where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(command)}: {done.stderr.strip()}", file=sys.stderr)
        return None
    return done.stdout.strip()
