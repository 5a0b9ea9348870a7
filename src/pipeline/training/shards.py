"""Training with weights, gradients and optimizer in shards: each device holds a part (fully sharded data parallel)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from pipeline.collective import summed
from pipeline.config.schema import TrainConfig
from pipeline.errors import UserError

SHARDED = "fsdp"  # the name of the strategy


def is_sharded(strategy: str) -> bool:
    """Whether each device holds a part of the network."""
    return strategy == SHARDED


def strategy_of(name: str, shard_parameters: int) -> Any:
    """What Lightning's Trainer takes as its strategy.

    ``shard_parameters``: weights of the smallest part of a network that is gathered, used and freed by itself. Whole
    plain weights stand in checkpoints, so that predictions and other numbers of devices can use them.
    """
    if not is_sharded(name):
        return name
    policy = partial(size_based_auto_wrap_policy, min_num_params=shard_parameters)
    return FSDPStrategy(auto_wrap_policy=policy, state_dict_type="full")


def require_shards(settings: TrainConfig, device: str) -> None:
    """Raise UserError for settings that do not work on a network in shards."""
    if not is_sharded(settings.trainer.strategy):
        return
    if device != "cuda":
        raise UserError("trainer=fsdp: shards need GPUs", "use trainer=ddp on CPUs")
    if settings.trainer.ema_decay is not None:
        raise UserError(
            "trainer.ema_decay: trainer=fsdp keeps no average of the weights, its devices hold shards of them",
            "set trainer.ema_decay=null",
        )
    if str(settings.optimizer["_target_"]).endswith("Muon"):
        raise UserError(
            "optimizer=muon needs whole matrices; trainer=fsdp holds shards of them", "use optimizer=adamw or sgd"
        )


def all_finite(gradients: list[torch.Tensor], device: torch.device) -> bool:
    """Whether the norm of these gradients, and of the shards of them that other processes have, is finite."""
    norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    wrong = summed((~torch.isfinite(norm)).to(device, torch.int32))
    return not bool(wrong)
