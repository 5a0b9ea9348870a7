"""The processes of a training: how many there are, which of them this one is, what each takes of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.config.schema import TrainConfig, Trainer
from pipeline.errors import UserError
from pipeline.ranks import launcher, rank
from pipeline.training.device import accelerator_kind, chosen_threads

MOST_WORKERS = 12  # of trainer.workers=auto, as nnU-Net has


@dataclass(frozen=True)
class Processes:
    """This one is number ``rank`` of ``devices`` (on each node) times ``nodes``."""

    rank: int
    devices: int
    nodes: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.devices * self.nodes


def processes_of(trainer: Trainer) -> Processes:
    """What ``trainer.devices`` and ``trainer.num_nodes`` mean here, before Lightning has started any process.

    ``auto``: as many as torchrun or Slurm started, else every GPU of this machine, or one CPU process. Raises UserError
    where the launcher started another number.
    """
    started = launcher()
    nodes = 1 if trainer.num_nodes == "auto" else trainer.num_nodes
    if trainer.devices != "auto":
        devices = trainer.devices
    elif started is not None:
        devices = started.per_node or max(1, started.processes // nodes)
    else:
        devices = max(1, torch.cuda.device_count()) if accelerator_kind(trainer.accelerator) == "cuda" else 1
    if started is not None and trainer.num_nodes == "auto":
        nodes = max(1, started.processes // devices)
    if started is not None and (started.processes != devices * nodes or started.per_node not in (None, devices)):
        raise UserError(
            f"{started.name} started {started.processes} process(es), but trainer.devices={devices} x "
            f"trainer.num_nodes={nodes} are {devices * nodes}, {devices} on each node",
            "trainer.devices=auto trainer.num_nodes=auto takes those that were started",
            "or start as many: torchrun --nproc-per-node DEVICES --nnodes NODES, "
            "srun --ntasks-per-node=DEVICES --nodes=NODES",
        )
    return Processes(rank(devices), devices, nodes)


def device_batch(settings: TrainConfig) -> int:
    """Samples of a batch on each device; raises UserError where a batch of all cannot be divided among them."""
    sampling, processes = settings.sampling, processes_of(settings.trainer)
    if sampling.batch_of == "device":
        return sampling.batch_size
    if sampling.batch_size % processes.count:
        lower = sampling.batch_size // processes.count * processes.count
        near = [size for size in (lower, lower + processes.count) if size]
        raise UserError(
            f"sampling.batch_size={sampling.batch_size} with sampling.batch_of=all cannot be divided among "
            f"{processes.count} devices",
            f"set sampling.batch_size={' or '.join(map(str, near))}",
        )
    return sampling.batch_size // processes.count


def threads_of(settings: TrainConfig) -> int:
    """The CPU threads of a training with these settings."""
    return chosen_threads(settings.trainer.threads, processes_of(settings.trainer).devices)


def loading_processes(settings: TrainConfig) -> int:
    """What ``trainer.workers`` means here."""
    trainer = settings.trainer
    if trainer.workers != "auto":
        return trainer.workers
    return 0 if accelerator_kind(trainer.accelerator) == "cpu" else min(MOST_WORKERS, threads_of(settings))


def augments_on_host(settings: TrainConfig) -> bool:
    """Whether batches are augmented where they are loaded; ``auto``: for a GPU, which so is left to the network.

    The number of loading processes has no say, for it must change no result.
    """
    if settings.engine.augment != "auto":
        return settings.engine.augment == "host"
    return accelerator_kind(settings.trainer.accelerator) == "cuda"
