"""Which engine is fastest here: a few steps of each candidate, remembered."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.store.locks import locked
from pipeline.json_file import write_json
from pipeline.networks.engine import Engine, Precision, use_engine

VERSION = 4  # of what is measured; another one forgets what was remembered


@dataclass(frozen=True)
class Trial:
    """A training step to be measured: ``batch``: (B, C, *spatial); ``seconds``: most that measured steps may take."""

    batch: tuple[int, ...]
    device: torch.device
    seconds: float
    steps: int
    least_gain: float


@dataclass(frozen=True)
class Choice:
    """The engine chosen and why; ``seconds``: least step (s) of each candidate that was measured, by its name."""

    engine: Engine
    source: str  # given | measured | remembered
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def in_words(self) -> str:
        """One line for people."""
        if self.source == "given":
            return f"engine: {self.engine}"
        plain = (str(Engine(precision=precision)) for precision in ("32", self.engine.precision))
        stock = next((self.seconds[name] for name in plain if name in self.seconds), None)
        chosen = self.seconds.get(str(self.engine))
        gain = "" if stock is None or chosen is None else f", {stock / chosen:.2f} times as fast as plain PyTorch"
        return f"engine: {self.engine} ({self.source}{gain})"

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def choose(
    candidates: Sequence[Engine],
    build_network: Callable[[], nn.Module],
    trial: Trial,
    memory: Path,
    identity: Mapping[str, Any],
) -> Choice:
    """The fastest of ``candidates``, plain PyTorch first among equals.

    What was measured under the same ``identity`` (everything that the times depend on) is taken from the folder
    ``memory``, where a new result is written. A single candidate is taken unmeasured. The random streams of the process
    are left as they were.
    """
    if len(candidates) == 1:
        return Choice(candidates[0], "given")
    named = {str(engine): engine for engine in candidates}
    key = json.dumps({**identity, "version": VERSION, "candidates": sorted(named), **_plain(trial)}, sort_keys=True)
    file = memory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    memory.mkdir(parents=True, exist_ok=True)
    with locked(file.with_suffix(".lock")):  # of several processes one measures
        known = _remembered(file, named)
        if known is not None:
            return known
        seconds, failed = measure(candidates, build_network, trial)
        chosen = named[fastest(seconds, trial.least_gain)] if seconds else candidates[0]
        result = {"engine": str(chosen), "seconds": seconds, "failed": failed, "measured_under": json.loads(key)}
        if seconds:  # where all fail the training itself will say why
            write_json(file, result)
    return Choice(chosen, "measured", seconds, failed)


def _remembered(file: Path, named: Mapping[str, Engine]) -> Choice | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Choice(named[kept["engine"]], "remembered", dict(kept["seconds"]), dict(kept["failed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: measured again


def fastest(seconds: Mapping[str, float], least_gain: float) -> str:
    """The name with the least time; an earlier one unless a later one is faster by the share ``least_gain``."""
    names = list(seconds)
    best = names[0]
    for name in names[1:]:
        if seconds[name] < seconds[best] * (1 - least_gain):
            best = name
    return best


def measure(
    candidates: Sequence[Engine], build_network: Callable[[], nn.Module], trial: Trial
) -> tuple[dict[str, float], dict[str, str]]:
    """Least seconds of a forward and backward pass of each candidate, and why others could not be measured.

    Each gets one step to warm up (compiled three: a CUDA graph is recorded in the second) and one that counts, then
    more in turn until ``steps`` or the time is reached; compiling is no part of it. The least counts, because whatever
    else the machine does can only add to a step.
    """
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    networks: dict[str, tuple[nn.Module, Engine]] = {}
    spent = 0.0
    devices = [trial.device] if trial.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        image = torch.randn(trial.batch, device=trial.device)
        for engine in candidates:
            name = str(engine)
            if times and spent > trial.seconds:
                failed[name] = "out of time"
                continue
            try:
                network = use_engine(build_network().to(trial.device), engine, training=True).train()
                for _ in range(3 if engine.compile else 1):
                    warm = step(network, image, engine.precision)
                times[name] = [step(network, image, engine.precision)]
                networks[name] = network, engine
                spent += times[name][0] + (0 if engine.compile else warm)
            except Exception as error:  # whatever a backend throws here, training goes on without it
                failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        while networks and spent < trial.seconds:
            waiting = [name for name in networks if len(times[name]) < trial.steps]
            if not waiting:
                break
            for name in waiting:
                network, engine = networks[name]
                times[name].append(step(network, image, engine.precision))
                spent += times[name][-1]
    return {name: round(min(values), 6) for name, values in times.items()}, failed


def step(network: nn.Module, image: Tensor, precision: Precision) -> float:
    """Seconds of one forward and backward pass."""
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    begun = time.perf_counter()
    network.zero_grad(set_to_none=True)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = network(image)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - begun


def _plain(trial: Trial) -> dict[str, Any]:
    return {"batch": list(trial.batch), "device": str(trial.device)}
