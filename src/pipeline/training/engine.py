"""The engine of an experiment: what the configuration asks for, or what is fastest at its patch and batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pipeline.config.build import build
from pipeline.config.schema_engine import Engine as EngineSection
from pipeline.errors import UserError
from pipeline.networks.engine import Compiled, Engine, Layout, NormKind, can_fuse
from pipeline.tracking.provenance import cpu_model
from pipeline.training.device import accelerator_kind, choose_precision, computes_bf16
from pipeline.training.devices import device_batch
from pipeline.training.engine_trial import Choice, Trial, choose
from pipeline.training.experiment import Experiment

CHOSEN = ("norm", "memory_format", "compile")


def with_engine(
    experiment: Experiment, cache: Path, recorded: Mapping[str, Any] | None = None
) -> tuple[Experiment, Choice]:
    """The experiment with its engine chosen: recorded in its settings and in the tree that becomes config.yaml.

    ``recorded``: what this run, or the one that is repeated, chose before; it stands for ``auto``.
    """
    settings = experiment.settings
    asked, trainer = settings.engine, settings.trainer
    if recorded:
        known = {name: recorded[name] for name in CHOSEN if getattr(asked, name) == "auto" and name in recorded}
        asked = asked.model_copy(update=known)
    device = torch.device(accelerator_kind(trainer.accelerator))
    precision = choose_precision(trainer.precision, device.type)
    config = experiment.resolved()["network"]

    def network() -> nn.Module:
        built: nn.Module = build(config, "network", experiment.trusted)
        return built

    trial = Trial(
        batch=(device_batch(settings), experiment.channels, *experiment.patch_size),
        device=device,
        bf16=precision == "bf16-mixed",
        seconds=asked.trial_seconds,
        steps=asked.trial_steps,
        least_gain=asked.least_gain,
    )
    identity = {"network": config, "machine": machine(device), "reproducible": str(settings.reproducible)}
    with torch.random.fork_rng(devices=[]):
        fusable = asked.norm == "auto" and can_fuse(network())
    whole_steps = trainer.accumulate == 1 and asked.oom == "stop"
    choice = choose(candidates(asked, device.type, fusable, whole_steps), network, trial, cache / "engine", identity)
    made = {"norm": choice.engine.norm, "memory_format": choice.engine.memory_format, "compile": choice.engine.compile}
    chosen = settings.model_copy(update={"engine": asked.model_copy(update=made)})
    tree = {**experiment.tree, "engine": {**cast(Mapping[str, Any], experiment.tree["engine"]), **made}}
    return replace(experiment, settings=chosen, tree=tree), choice


def candidates(asked: EngineSection, device: str, fusable: bool = True, whole_steps: bool = True) -> list[Engine]:
    """Every engine that the configuration leaves open on this device, plain PyTorch first, then the least plain.

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
    engines = [Engine(*values) for values in product(norms, layouts, compiled)]
    # A compiler lays features out by itself: one layout is enough for it.
    engines = [engine for engine in engines if not engine.compile or engine.memory_format == layouts[-1]]
    return [*engines[:1], *reversed(engines[1:])]  # the time may not suffice for all


def require_engine(asked: EngineSection, device: str, accumulate: int) -> None:
    """Raise UserError where the configuration asks for an engine that this machine or training cannot have."""
    if asked.compile == "graphs" and device == "cpu":
        raise UserError(
            "engine.compile=graphs: CUDA graphs need a GPU, and this training runs on the CPU",
            "set engine.compile=auto or true",
        )
    if asked.compile == "graphs" and (accumulate > 1 or asked.oom == "shrink"):
        raise UserError(
            "engine.compile=graphs: its gradients last for one backward pass, and this training adds up several",
            "set engine.compile=true, or trainer.accumulate=1 and engine.oom=stop",
        )
    if asked.compile is True and device == "cpu" and compiler() is None:
        raise UserError(
            "engine.compile=true: torch.compile needs a C++ compiler on a CPU, and none is found",
            "install g++ or clang, or set engine.compile=auto",
        )


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
