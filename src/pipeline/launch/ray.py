"""Jobs on a Ray cluster, one that is there or one of this machine alone."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError, one_line
from pipeline.launch.job import Job

LOCAL = "local"
OF_RAY = "RAY_"  # variables that tell Ray's processes about each other
# Read when ray is imported. The second, on Linux too, lets a cluster listen on 127.0.0.1 only: it runs what it is sent.
OF_LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class Ray:
    """An engine: each job is a Ray actor that runs its command.

    ``address``: ``local`` starts a cluster on this machine, of its cores and GPUs, for as long as the jobs run;
    ``auto`` is the cluster that this machine belongs to, and ``host:port`` the head of another to which it belongs.
    ``cores``, ``gpus``, ``memory_gb`` and ``resources`` (names that the cluster gave its nodes) are set aside per job;
    Ray counts them and limits nothing by them. Cancelled, a command has ``stop_seconds`` to save.
    Logs and the working folder have to be on a file system that the nodes share.
    """

    outlived = False

    def __init__(
        self,
        address: str = LOCAL,
        cores: float = 1,
        gpus: float = 0,
        memory_gb: float | None = None,
        resources: Mapping[str, float] | None = None,
        stop_seconds: float = 120.0,
        at_once: int | None = None,
    ) -> None:
        self.at_once = at_once
        self.cores: int | None = max(1, int(cores))
        self.address = address
        self.stop_seconds = stop_seconds
        self._resources: dict[str, Any] = {"num_cpus": cores, "num_gpus": gpus, "resources": dict(resources or {})}
        if memory_gb is not None:
            self._resources["memory"] = int(memory_gb * 1024**3)
        self._remote: Any = None
        self._started = False
        if "://" in address:
            cause = f"launch.engine.address={address}: only the processes of a cluster's own machines can start jobs"
            raise UserError(cause, "start it on a machine of the cluster with address=auto, or address=HOST:PORT")

    def expect(self, jobs: int) -> None:
        """Ray queues as many as there are; raises UserError where it is not installed."""
        self._import()

    def submit_all(self, jobs: Sequence[Job]) -> list[RayJob]:
        """Raises UserError where there is no such cluster, or it can never hold a job."""
        if self._remote is None:
            self._remote = self._connected()
        return [self._submit(job) for job in jobs]

    def _submit(self, job: Job) -> RayJob:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_RAY)}
        environment.update(job.environment)
        actor = self._remote.remote(job.command, str(job.log.absolute()), environment, str(job.folder))
        return RayJob(actor, job.log, self.stop_seconds)

    def describe(self, job: Job) -> str:
        """The command line."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in job.environment.items()]
        return " ".join([*variables, shlex.join(job.command)])

    def close(self) -> None:
        """Leave the cluster: jobs that still run are ended."""
        if self._started:
            import ray

            ray.shutdown()
        self._remote = None

    def _import(self) -> Any:
        """Ray; raises UserError where it is not installed."""
        if self.address == LOCAL:
            os.environ.update(OF_LOCAL)
        try:
            import ray
        except ModuleNotFoundError:
            cause = "launch=ray needs ray, which is not installed"
            raise UserError(cause, "in the checkout: pip install -e '.[ray]'") from None
        return ray

    def _connected(self) -> Any:
        ray = self._import()
        if self.address not in (LOCAL, "auto"):
            self._refuse_silence()
        from pipeline.launch import process, ray_task

        if not ray.is_initialized():
            self._start(ray)
        if self.address == LOCAL:
            self._refuse_too_large(ray.cluster_resources())
        for module in (process, ray_task):
            ray.cloudpickle.register_pickle_by_value(module)
        options = {**self._resources, "max_restarts": 0, "max_task_retries": 0}
        return ray.remote(**options)(ray_task.RunningCommand)

    def _start(self, ray: Any) -> None:
        settings: dict[str, Any] = {"address": self.address}
        if self.address == LOCAL:
            settings |= {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
        try:
            with _handlers_kept():
                ray.init(**settings, log_to_driver=False, configure_logging=False)
        except Exception as error:  # of many kinds
            raise self._not_there(error) from error
        self._started = True

    def _refuse_silence(self) -> None:
        """Ray itself would try for minutes to reach a head that is not there."""
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"launch.engine.address={self.address}: neither local nor auto nor host:port")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise self._not_there(error) from None

    def _not_there(self, error: Exception) -> UserError:
        return UserError(
            f"launch.engine.address={self.address}: no Ray cluster there: {one_line(str(error))}",
            "ray status   tells whether this machine belongs to one",
            "launch.engine.address=local starts one of this machine alone",
        )

    def _refuse_too_large(self, has: Mapping[str, float]) -> None:
        """A job that can never start would wait for ever; elsewhere further nodes may come."""
        wanted = {
            "CPU": self._resources["num_cpus"],
            "GPU": self._resources["num_gpus"],
            **self._resources["resources"],
        }
        wanted["memory"] = self._resources.get("memory", 0)
        for name, amount in wanted.items():
            if amount > has.get(name, 0):
                cause = f"launch.engine: a job asks for {amount:g} of {name}, and this machine has {has.get(name, 0):g}"
                raise UserError(cause, "ask for less, or name a cluster: launch.engine.address=auto")


class RayJob:
    """A job that Ray has taken: an actor that tells whether its command has ended."""

    def __init__(self, actor: Any, log: Path, stop_seconds: float) -> None:
        self.id: str = actor._actor_id.hex()
        self._actor = actor
        self._log = log
        self._stop_seconds = stop_seconds
        self._state: Literal["waiting", "running", "ended"] = "waiting"
        self._status: int | None = None
        self._answer = actor.ended.remote()  # comes once the actor has found its place

    def state(self) -> Literal["waiting", "running", "ended"]:
        """As the actor answered last; does not wait."""
        import ray

        if self._state == "ended" or not ray.wait([self._answer], timeout=0)[0]:
            return self._state
        try:
            ended, self._status = ray.get(self._answer)
        except ray.exceptions.RayError as error:
            self._state = "ended"
            self._tell(error)
            return self._state
        if ended:
            self._state = "ended"
            ray.kill(self._actor)  # gives its resources back
        else:
            self._state = "running"
            self._answer = self._actor.ended.remote()
        return self._state

    def exit_status(self) -> int | None:
        """None after the node, the worker or the command was killed, and for a job that never started."""
        return self._status

    def cancel(self) -> None:
        """The command is asked to save and stop, then killed; one that waits is given up."""
        import ray

        if self.state() == "waiting":
            ray.kill(self._actor)
        elif self._state == "running":
            self._actor.stop.remote(self._stop_seconds)

    def _tell(self, error: Exception) -> None:
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write(f"Ray actor {self.id} left no exit status: {type(error).__name__}: {str(error).strip()}\n")


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """What ray.init does to signals is undone: they are the launcher's."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
