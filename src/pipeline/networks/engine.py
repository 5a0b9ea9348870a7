"""How a network is computed: which norm, layout and precision, compiled or not. Its weights stay the same."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn

from pipeline.networks.layout import with_strides_of_channels_last
from pipeline.networks.learned_slope import LearnedSlope
from pipeline.networks.narrow_batch_norm import NarrowBatchNorm, is_narrow_batch_norm
from pipeline.networks.norm_activation import NormActivation
from pipeline.networks.take_over import take_over

NormKind = Literal["stock", "fused"]
Compiled = bool | Literal["graphs"]
Layout = Literal["contiguous", "channels_last"]
Precision = Literal["32", "bf16"]


@dataclass(frozen=True)
class Engine:
    """A choice; the default is plain PyTorch. See conf/train.yaml for the meaning of each value.

    ``precision`` is trainer.precision: who calls the network enters its autocast, ``use_engine`` does not.
    """

    norm: NormKind = "stock"
    memory_format: Layout = "contiguous"
    compile: Compiled = False
    precision: Precision = "32"

    @classmethod
    def recorded(cls, section: Mapping[str, Any] | None) -> Engine:
        """That of a run's config.yaml; plain PyTorch where the run recorded none."""
        section = section or {}
        return cls(
            norm="fused" if section.get("norm") == "fused" else "stock",
            memory_format="channels_last" if section.get("memory_format") == "channels_last" else "contiguous",
            compile="graphs" if section.get("compile") == "graphs" else section.get("compile") is True,
        )

    def __str__(self) -> str:
        words = [f"{self.norm} norm", self.memory_format.replace("_", " ")]
        words += {False: [], True: ["compiled"], "graphs": ["compiled to CUDA graphs"]}[self.compile]
        words += ["bf16"] if self.precision == "bf16" else []
        return ", ".join(words)


def use_engine(network: nn.Module, engine: Engine, *, training: bool) -> nn.Module:
    """Make ``network`` compute as ``engine`` says, in place; predictions are never compiled.

    Parameters stay the same objects in the same order, and ``state_dict`` keeps its keys.
    """
    if engine.norm == "fused":
        fuse_norms(network)
    if engine.memory_format == "channels_last":
        for parameter in network.parameters():
            last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.ndim)
            if last is not None:  # a network may have weights of both kinds
                parameter.data = parameter.data.contiguous(memory_format=last)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels == 1:
                module.register_forward_pre_hook(_one_channel_last)
    if engine.compile and training:  # all batches of a training are of one shape
        network.compile(dynamic=False, mode="reduce-overhead" if engine.compile == "graphs" else None)
    return network


def _one_channel_last(convolution: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if not given or given[0].device.type != "cpu":  # given by keyword
        return given
    return (with_strides_of_channels_last(given[0]), *given[1:])


def as_written(network: nn.Module) -> AbstractContextManager[Any]:
    """Inside, a compiled network runs uncompiled: for the many shapes of whole images."""
    if all(module._compiled_call_impl is None for module in network.modules()):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def fuse_norms(network: nn.Module) -> None:
    """Put ``NormActivation`` in the place of each instance norm, together with a leaky ReLU or ReLU right after it.

    Inside a sequence only what is called one after the other is joined; elsewhere the norm alone is replaced. PReLUs of
    one slope become ``LearnedSlope``, batch norms of few channels ``NarrowBatchNorm``.
    """
    for parent in list(network.modules()):
        in_order = isinstance(parent, nn.Sequential) and type(parent).forward is nn.Sequential.forward
        children = [(name, child) for name, child in parent.named_children() if not isinstance(child, nn.Identity)]
        for position, (name, child) in enumerate(children):
            if not _is_fusable(child):
                continue
            slope = 1.0
            if in_order and position + 1 < len(children):
                after, activation = children[position + 1]
                found = slope_of(activation)
                if found is not None:
                    slope = found
                    setattr(parent, after, nn.Identity())
            setattr(parent, name, NormActivation(child, slope))
        for name, child in list(parent.named_children()):
            if _is_one_slope(child):
                setattr(parent, name, LearnedSlope(child))
            elif is_narrow_batch_norm(child):
                setattr(parent, name, take_over(child, NarrowBatchNorm))


def can_fuse(network: nn.Module) -> bool:
    """Whether ``network`` has layers that ``fuse_norms`` would replace."""
    kinds = (_is_fusable, _is_one_slope, is_narrow_batch_norm)
    return any(kind(module) for module in network.modules() for kind in kinds)


def _is_fusable(module: nn.Module) -> TypeGuard[nn.InstanceNorm2d | nn.InstanceNorm3d]:
    return type(module) in (nn.InstanceNorm2d, nn.InstanceNorm3d) and not module.track_running_stats


def _is_one_slope(module: nn.Module) -> TypeGuard[nn.PReLU]:
    return type(module) is nn.PReLU and module.num_parameters == 1


def slope_of(activation: nn.Module) -> float | None:
    """The slope of negative values of a ReLU or leaky ReLU, None for any other layer."""
    if type(activation) is nn.ReLU:  # a subclass may compute more
        return 0.0
    if type(activation) is nn.LeakyReLU and activation.negative_slope >= 0:
        return float(activation.negative_slope)
    return None
