"""Training with weights, gradients and optimizer in shards: each device holds a part (fully sharded data parallel)."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from pipeline.config.schema import TrainConfig
from pipeline.errors import UserError

SHARDED = "fsdp"  # the name of the strategy


class Shards(ModelParallelStrategy):
    """PyTorch's ``fully_shard`` over all devices; checkpoints hold whole plain weights, as of any other training.

    ``least``: weights of the smallest part of the network that is gathered, used and freed by itself.
    Source: Zhao et al., PyTorch FSDP, VLDB 2023; PyTorch's second implementation of it, which runs on CPUs too.
    """

    def __init__(self, least: int) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.least = least

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        network = self.model.network
        assert isinstance(network, nn.Module)
        mesh = self.device_mesh["data_parallel"]
        shard_parts(network, mesh, self.least)
        fully_shard(network, mesh=mesh)
        self.barrier()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()


def shard_parts(module: nn.Module, mesh: DeviceMesh, least: int) -> int:
    """Shard, from the leaves on, every part below ``module`` that has ``least`` weights; how many are left over."""
    left = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    for child in module.children():
        over = shard_parts(child, mesh, least)
        if over >= least and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            fully_shard(child, mesh=mesh)
            over = 0
        left += over
    return left


def is_sharded(strategy: str) -> bool:
    """Whether each device holds a part of the network."""
    return strategy == SHARDED


def strategy_of(name: str, shard_parameters: int) -> Any:
    """What Lightning's Trainer takes as its strategy."""
    return Shards(shard_parameters) if is_sharded(name) else name


def require_shards(settings: TrainConfig) -> None:
    """Raise UserError for settings that do not work on a network in shards."""
    if not is_sharded(settings.trainer.strategy):
        return
    if settings.trainer.ema_decay is not None:
        raise UserError(
            "trainer.ema_decay: trainer=fsdp keeps no average of the weights, its devices hold shards of them",
            "set trainer.ema_decay=null",
        )
    if settings.engine.memory_format == "channels_last":
        raise UserError(
            "engine.memory_format=channels_last: trainer=fsdp shards contiguous weights alone",
            "set engine.memory_format=auto or contiguous",
        )
    if str(settings.optimizer["_target_"]).endswith("Muon"):
        raise UserError(
            "optimizer=muon needs whole matrices; trainer=fsdp holds shards of them", "use optimizer=adamw or sgd"
        )


def all_finite(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Whether the norm of these gradients is finite, () bool; in shards, that of all, which every process asks for."""
    if not gradients:
        return torch.tensor(True)
    norm = torch.nn.utils.get_total_norm(gradients)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return torch.isfinite(whole)
