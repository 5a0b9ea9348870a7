"""Jobs on a Slurm cluster, submitted by submitit."""

from __future__ import annotations

import contextlib
import math
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError, one_line
from pipeline.launch.job import Job
from pipeline.launch.sbatch_options import check_options
from pipeline.launch.slurm_queue import BY_ITSELF, ENDED, WAITING, SlurmQueue
from pipeline.launch.slurm_task import ANSWERS, LOST, WARNING, SlurmTask, read_status, status_file

FOLDER = "slurm"  # beside the logs of the jobs: sbatch scripts, what submitit writes, exit statuses
SETTLES = 15.0  # s; files written on a node may show later than the end of its job


class Slurm:
    """An engine: each job is a Slurm job of its own or, submitted together, an element of an array.

    ``hours`` and ``memory_gb`` (GB a node) are what the job may use; ``cores`` is per task, ``gpus`` per node. With
    several tasks each is one process of torch.distributed. ``warn_seconds`` before its time is over, and when it is
    pre-empted, the command is asked to save and stop; the job then goes back into the queue, ``requeues`` times at
    most, and goes on. ``array_parallelism`` is the most elements of an array that run at once. ``sbatch`` holds further
    options of sbatch. Logs and the working folder have to be on a file system that the nodes share.
    """

    outlived = True

    def __init__(
        self,
        hours: float,
        cores: int = 1,
        gpus: int = 0,
        memory_gb: float | None = None,
        nodes: int = 1,
        tasks_per_node: int = 1,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        warn_seconds: int = 120,
        requeues: int = 100,
        array_size: int = 1000,
        array_parallelism: int | None = None,
        at_once: int | None = None,
        poll_seconds: float = 5.0,
        sbatch: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        self.at_once = at_once
        self.cores: int | None = cores
        self.requeues = requeues
        self.array_size = array_size
        self.tasks = nodes * tasks_per_node
        named = {"partition": partition, "account": account, "qos": qos}
        options: dict[str, str | int | bool] = {name: value for name, value in named.items() if value is not None}
        options |= sbatch or {}
        check_options(options)
        options |= {"requeue": True, "signal": f"{WARNING.name.removeprefix('SIG')}@{warn_seconds}"}
        if memory_gb is not None:
            options["mem"] = f"{math.ceil(memory_gb * 1024)}M"
        if gpus:
            options["gpus-per-node"] = gpus
        self._parameters: dict[str, Any] = {
            "time": max(1, math.ceil(hours * 60)),
            "cpus_per_task": cores,
            "nodes": nodes,
            "ntasks_per_node": tasks_per_node,
            "stderr_to_stdout": True,
            "array_parallelism": array_parallelism or array_size,
            # srun does not take the cores from sbatch; and of several tasks, those that wait for one that failed
            # would wait for hours.
            "srun_args": [f"--cpus-per-task={cores}", "--kill-on-bad-exit=1"],
            "additional_parameters": options,
        }
        self._queue = SlurmQueue(poll_seconds)

    def expect(self, jobs: int) -> None:
        """Slurm queues as many as there are; raises UserError where this machine cannot submit to it."""
        _require_slurm()

    def submit_all(self, jobs: Sequence[Job]) -> list[SlurmJob]:
        """All of them at once, as arrays of at most ``array_size``; their logs lie in one folder.

        Raises UserError where Slurm refuses them.
        """
        submitted: list[SlurmJob] = []
        for first in range(0, len(jobs), self.array_size):
            part = jobs[first : first + self.array_size]
            executor = self._executor(part[0], part[0].name if len(part) == 1 else f"{part[0].name} and others")
            folder = Path(executor.folder)
            with _as_user_errors(part[0].name), executor.batch():
                taken = [executor.submit(self._task(job, folder)) for job in part]
            for job, slurm_job in zip(part, taken, strict=True):
                submitted.append(SlurmJob(slurm_job.job_id, folder, job.log, self.tasks, self._queue))
        return submitted

    def describe(self, job: Job) -> str:
        """The sbatch script, and what it runs."""
        executor = self._executor(job, job.name)
        script = executor._make_submission_file_text(executor._submitit_command_str, "")
        variables = [f"{name}={shlex.quote(value)}" for name, value in job.environment.items()]
        return f"{script}\n# which runs: {' '.join([*variables, shlex.join(job.command)])}\n"

    def close(self) -> None:
        """Nothing: jobs in the queue do not need this process."""

    def _task(self, job: Job, folder: Path) -> SlurmTask:
        log = str(job.log.absolute())
        return SlurmTask(job.command, log, dict(job.environment), str(job.folder), str(folder), self.requeues)

    def _executor(self, job: Job, name: str) -> Any:
        executor_of = _require_slurm()
        folder = job.log.parent.absolute() / FOLDER
        if "%" in str(folder):
            raise UserError(f"{folder}: Slurm reads % in the name of a folder in a way of its own", "rename the folder")
        executor = executor_of(folder=folder)
        executor.update_parameters(job_name=name, **self._parameters)
        return executor


class SlurmJob:
    """A job that Slurm has taken."""

    def __init__(self, id: str, folder: Path, log: Path, tasks: int, queue: SlurmQueue) -> None:
        self.id = id
        self._log = log
        self._files = [status_file(folder, id, rank) for rank in range(tasks)]
        self._queue = queue
        self._submitted = time.monotonic()
        self._seen_ended: float | None = None  # by the monotonic clock
        self._over = False

    def state(self) -> Literal["waiting", "running", "ended"]:
        """As squeue tells it; pre-empted and back in the queue it is waiting."""
        if self._over:
            return "ended"
        word = self._queue.state(self.id, self._submitted)
        if word is not None and word not in ENDED:
            self._seen_ended = None
            return "waiting" if word in WAITING else "running"
        now = time.monotonic()
        self._seen_ended = self._seen_ended or now
        complete = all(file.exists() for file in self._files)
        if not complete and (word is None or word in BY_ITSELF) and now - self._seen_ended < SETTLES:
            return "running"
        self._over = True
        if not complete:
            with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
                file.write(f"Slurm job {self.id} left no exit status: {word or 'unknown to Slurm'}\n")
        return "ended"

    def exit_status(self) -> int | None:
        """That of the task that failed, not of those that srun ended because of it."""
        statuses = [read_status(file) for file in self._files]
        failed = [status for status in statuses if status not in (None, 0, LOST, *ANSWERS)]
        if failed:
            return failed[0]
        if None in statuses or LOST in statuses:
            return None
        return max(statuses, key=lambda status: status or 0)

    def cancel(self) -> None:
        """The command is asked to save and stop; Slurm kills it after its KillWait (30 s by default)."""
        subprocess.run(["scancel", self.id], capture_output=True, check=False)


def _require_slurm() -> Any:
    """submitit's executor; raises UserError where that or Slurm is not there."""
    try:
        from submitit import SlurmExecutor
    except ModuleNotFoundError:
        cause = "launch=slurm needs submitit, which is not installed"
        raise UserError(cause, "in the checkout: pip install -e '.[slurm]'") from None
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        cause = "launch=slurm: sbatch is not on PATH, so this machine cannot submit to a Slurm cluster"
        raise UserError(cause, "start it on a login node of the cluster, or choose launch=local")
    return SlurmExecutor


@contextmanager
def _as_user_errors(job: str) -> Iterator[None]:
    from submitit.core.utils import FailedJobError

    try:
        yield
    except (FailedJobError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error)
        lines = [line for line in said.splitlines() if line.strip()]
        cause = f"Slurm did not take job {job}: {one_line(lines[-1] if lines else said)}"
        remedy = "see launch.engine: partition, account, hours, cores, gpus, memory_gb; what the cluster has: sinfo"
        raise UserError(cause, remedy) from error
