"""The engine of an experiment: what the configuration asks for, or what is fastest at its patch and batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pipeline.config.build import build
from pipeline.config.schema import TrainConfig
from pipeline.config.schema_engine import Engine as EngineSection
from pipeline.errors import UserError
from pipeline.networks.engine import Compiled, Engine, Layout, NormKind, Precision, can_fuse
from pipeline.tracking.provenance import cpu_model
from pipeline.training.device import accelerator_kind, choose_precision, computes_bf16
from pipeline.training.devices import device_batch
from pipeline.training.engine_trial import Choice, Trial, choose
from pipeline.training.experiment import Experiment
from pipeline.training.shards import is_sharded

CHOSEN = ("norm", "memory_format", "compile")


def with_engine(
    experiment: Experiment, cache: Path, recorded: Mapping[str, Any] | None = None
) -> tuple[Experiment, Choice]:
    """The experiment with its engine chosen: recorded in its settings and in the tree that becomes config.yaml.

    ``recorded``: what this run, or the one that is repeated, chose before; it stands for ``auto``.
    """
    settings = experiment.settings
    asked, trainer = settings.engine, settings.trainer
    if is_sharded(trainer.strategy) and asked.memory_format == "auto":  # FSDP takes contiguous weights alone
        asked = asked.model_copy(update={"memory_format": "contiguous"})
    device = torch.device(accelerator_kind(trainer.accelerator))
    whole_steps = has_whole_steps(settings)
    if recorded:
        known = {name: recorded[name] for name in CHOSEN if getattr(asked, name) == "auto" and name in recorded}
        if "compile" in known and cannot_compile(known["compile"], device.type, whole_steps):
            known["compile"] = False  # it was chosen on another machine, or for another training
        asked = asked.model_copy(update=known)
    config = experiment.resolved()["network"]

    def network() -> nn.Module:
        built: nn.Module = build(config, "network", experiment.trusted)
        return built

    trial = Trial(
        batch=(device_batch(settings), experiment.channels, *experiment.patch_size),
        device=device,
        seconds=asked.trial_seconds,
        steps=asked.trial_steps,
        least_gain=asked.least_gain,
    )
    identity = {"network": config, "machine": machine(device), "reproducible": str(settings.reproducible)}
    with torch.random.fork_rng(devices=[]):
        fusable = asked.norm == "auto" and can_fuse(network())
    precisions = open_precisions(trainer.precision, device.type, recorded)
    engines = candidates(asked, device.type, precisions, fusable, whole_steps)
    choice = choose(engines, network, trial, cache / "engine", identity)
    made = {
        "engine": {name: getattr(choice.engine, name) for name in CHOSEN},
        "trainer": {"precision": choice.engine.precision},
    }
    sections = {name: getattr(settings, name).model_copy(update=values) for name, values in made.items()}
    nodes = {name: {**cast(Mapping[str, Any], experiment.tree[name]), **values} for name, values in made.items()}
    chosen = settings.model_copy(update=sections)
    return replace(experiment, settings=chosen, tree={**experiment.tree, **nodes}), choice


def split_choice(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A resolved configuration without what ``with_engine`` chooses, and that alone."""
    trainer = dict(tree["trainer"])
    chosen = {"engine": tree["engine"], "trainer": {"precision": trainer.pop("precision")}}
    return {**{name: value for name, value in tree.items() if name != "engine"}, "trainer": trainer}, chosen


def open_precisions(asked: str, device: str, recorded: Mapping[str, Any] | None) -> list[Precision]:
    """The precisions among which a trial chooses.

    On a CPU with instructions for bf16 both are open: an AMD Zen 4 computes twice as fast in it, an Intel Xeon without
    AMX slower than in float32.
    """
    if recorded and asked == "auto":
        # A run from before the precision was measured had bf16 wherever the device has it.
        asked = recorded.get("precision", "auto")
    elif asked == "auto" and device == "cpu" and computes_bf16(device):
        return ["32", "bf16"]
    return ["bf16" if choose_precision(asked, device) == "bf16-mixed" else "32"]


def candidates(
    asked: EngineSection,
    device: str,
    precisions: Sequence[Precision] = ("32",),
    fusable: bool = True,
    whole_steps: bool = True,
) -> list[Engine]:
    """Every engine that is left open on this device, plain PyTorch first, then the least plain.

    ``fusable``: the network has norms that can be fused. ``whole_steps``: each backward pass is a step of the
    optimizer, so that no gradients have to outlive a CUDA graph.
    """
    norms: list[NormKind] = ["stock", "fused"] if device == "cpu" and fusable else ["stock"]
    layouts: list[Layout] = ["contiguous", "channels_last"]
    compiled: list[Compiled] = [False]
    if device == "cuda":
        compiled += [True, "graphs"] if whole_steps else [True]
    if asked.norm != "auto":
        norms = [asked.norm]
    if asked.memory_format != "auto":
        layouts = [asked.memory_format]
    if asked.compile != "auto":
        compiled = [asked.compile]
    engines = [Engine(*values) for values in product(norms, layouts, compiled, precisions)]
    # A compiler lays features out by itself: one layout is enough for it.
    engines = [engine for engine in engines if not engine.compile or engine.memory_format == layouts[-1]]
    return [*engines[:1], *reversed(engines[1:])]  # the time may not suffice for all


def has_whole_steps(settings: TrainConfig) -> bool:
    """Whether every backward pass of whole weights is a step of the optimizer, as CUDA graphs need it."""
    trainer = settings.trainer
    return trainer.accumulate == 1 and settings.engine.oom == "stop" and not is_sharded(trainer.strategy)


def cannot_compile(compiled: Compiled, device: str, whole_steps: bool) -> UserError | None:
    """Why this machine or this training cannot have a network compiled so; None where it can."""
    if compiled == "graphs" and device == "cpu":
        return UserError(
            "engine.compile=graphs: CUDA graphs need a GPU, and this training runs on the CPU",
            "set engine.compile=auto or true",
        )
    if compiled == "graphs" and not whole_steps:
        return UserError(
            "engine.compile=graphs: its gradients last for one backward pass of whole weights; "
            "this training adds up several, or shards its weights",
            "set engine.compile=true, or trainer.accumulate=1, engine.oom=stop and another strategy than fsdp",
        )
    if compiled is True and device == "cpu" and compiler() is None:
        return UserError(
            "engine.compile=true: torch.compile needs a C++ compiler on a CPU, and none is found",
            "install g++ or clang, or set engine.compile=auto",
        )
    return None


def require_engine(settings: TrainConfig) -> None:
    """Raise UserError where the configuration asks for an engine that this machine or training cannot have."""
    asked, device = settings.engine.compile, accelerator_kind(settings.trainer.accelerator)
    if asked != "auto" and (why := cannot_compile(asked, device, has_whole_steps(settings))):
        raise why


def compiler() -> str | None:
    """The C++ compiler that torch.compile would find, None without one."""
    return next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)


def machine(device: torch.device) -> dict[str, Any]:
    """What the speed of a network depends on besides the network."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{cpu_model()} {torch.backends.cpu.get_cpu_capability()} bf16={computes_bf16('cpu')}"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
