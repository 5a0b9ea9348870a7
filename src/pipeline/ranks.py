"""Which of several cooperating processes this one is, from what launchers put into the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

RUN_FOLDER = "PIPELINE_RUN_FOLDER"  # set by rank zero for the processes it starts, so that all share one folder
NO_JOB = ("bash", "interactive")  # names of Slurm jobs in which a person types commands


@dataclass(frozen=True)
class Launcher:
    """What started all processes of a training. ``per_node``: processes on each node, None where it is not said."""

    name: str
    rank: int
    processes: int
    per_node: int | None


def launcher() -> Launcher | None:
    """torchrun or Slurm's srun, in the order in which Lightning looks for them; None where Lightning starts processes.

    A job of Slurm is one where Lightning takes it for one too (``SLURMEnvironment.detect``).
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        return Launcher("torchrun", int(environment["RANK"]), int(environment["WORLD_SIZE"]), local)
    if "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in NO_JOB:
        given = environment.get("SLURM_NTASKS_PER_NODE", "")
        per_node = int(given) if given.isdecimal() else None
        return Launcher("Slurm", int(environment.get("SLURM_PROCID", 0)), int(environment["SLURM_NTASKS"]), per_node)
    return None


def rank(per_node: int = 1) -> int:
    """Global rank of this process: 0 alone or first. ``per_node``: processes on each node.

    Without ``per_node`` every process but the first still has a rank above 0.
    """
    started = launcher()
    if started is not None:
        return started.rank
    return int(os.environ.get("NODE_RANK", 0)) * per_node + int(os.environ.get("LOCAL_RANK", 0))
