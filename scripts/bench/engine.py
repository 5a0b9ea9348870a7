"""Training steps of one network on every engine, and nnU-Net's own step beside them.

    python scripts/bench/engine.py [--network nnunet] [--patch 40 56 40] [--batch 9] [--rounds 5] [--threads 2]
                                   [--rival PYTHON] [--only NAME ...] [--profile NAME]

A step is forward, loss (Dice + cross entropy in float32, deep supervision where the network has it), backward, clipping
and SGD with nnU-Net's values, on the same random batch. The variants take turns, one step each a round, in this process;
`--rival` names a Python whose environment holds nnunetv2: its network, loss and step then take their turn in a process of
their own (see nnunet_step.py), in float32 as nnU-Net runs on a CPU and under bf16 autocast. Ratios are taken within a
round, against plain PyTorch in float32 and under bf16 autocast. `--profile` prints where the time of one variant goes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from pipeline.conf_dir import conf_dir
from pipeline.config.build import build, fill_derived
from pipeline.networks.engine import Engine, use_engine
from pipeline.tasks.base import to_float
from pipeline.tasks.deep_supervision import DeepSupervision
from pipeline.tasks.losses import DiceCELoss

CLASSES = 3
CPU = {
    "plain fp32": (Engine(), False),
    "plain bf16": (Engine(), True),
    "plain bf16, channels last": (Engine("stock", "channels_last"), True),
    "fused fp32": (Engine("fused"), False),
    "fused fp32, channels last": (Engine("fused", "channels_last"), False),
    "fused bf16": (Engine("fused"), True),
    "fused bf16, channels last": (Engine("fused", "channels_last"), True),
}
CUDA = {
    "plain fp32": (Engine(), False),
    "plain bf16": (Engine(), True),
    "plain bf16, channels last": (Engine("stock", "channels_last"), True),
    "compiled bf16": (Engine(compile=True), True),
    "compiled bf16, channels last": (Engine("stock", "channels_last", compile=True), True),
}


def network_of(options: argparse.Namespace) -> Any:
    """The network of conf/network/NAME.yaml for one channel and three classes."""
    node = yaml.safe_load((conf_dir() / "network" / f"{options.network}.yaml").read_text(encoding="utf-8"))
    derived = {
        "spatial_dims": len(options.patch),
        "in_channels": 1,
        "out_channels": CLASSES,
        "patch_size": options.patch,
        "spacing": None,
    }
    torch.manual_seed(0)
    return build(fill_derived({"network": node}, derived)["network"], "network")


def training_step(network: nn.Module, image: Tensor, truth: Tensor, bf16: bool) -> Callable[[], float]:
    """A function that takes one step and returns its seconds."""
    loss = DeepSupervision(DiceCELoss())
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    cuda = image.device.type == "cuda"

    def step() -> float:
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
            value = loss(to_float(network(image)), truth)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    return step


class Rival:
    """nnU-Net's step in another environment."""

    def __init__(self, python: str, network: Any, options: argparse.Namespace) -> None:
        plan = {
            "patch": options.patch,
            "batch": options.batch,
            "classes": CLASSES,
            "threads": options.threads,
            "features": [stage.blocks[0][0].out_channels for stage in network.encoder],
            "kernels": network.kernel_sizes,
            "strides": network.strides,
        }
        script = Path(__file__).with_name("nnunet_step.py")
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        environment.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [python, str(script), json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.parameters = json.loads(self._line())["parameters"]

    def step(self, precision: str) -> float:
        """Seconds of one step."""
        assert self.process.stdin is not None
        print(precision, file=self.process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("nnU-Net's process ended; does its environment hold nnunetv2?")
        return line


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def profile(step: Callable[[], float]) -> str:
    """Where the time of a step goes, by operator and input shapes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU], record_shapes=True) as result:
        step()
    whole = result.key_averages().table(sort_by="self_cpu_time_total", row_limit=25)
    by_shape = result.key_averages(group_by_input_shape=True)
    return f"{whole}\n{by_shape.table(sort_by='self_cpu_time_total', row_limit=30, max_shapes_column_width=70)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="nnunet")
    parser.add_argument("--patch", type=int, nargs="+", default=[40, 56, 40])
    parser.add_argument("--batch", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rival", metavar="PYTHON")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--profile", metavar="NAME")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    image = torch.randn(options.batch, 1, *options.patch, device=device)
    truth = torch.randint(0, CLASSES, (options.batch, 1, *options.patch), device=device, dtype=torch.uint8)
    variants = CUDA if device.type == "cuda" else CPU
    chosen = [options.profile] if options.profile else options.only or list(variants)
    steps: dict[str, Callable[[], float]] = {}
    for name in chosen:
        engine, bf16 = variants[name]
        network = use_engine(network_of(options).to(device), engine, training=True).train()
        steps[name] = training_step(network, image, truth, bf16)
    if options.profile:
        steps[options.profile]()
        print(profile(steps[options.profile]))
        return
    print(f"{options.network}: {sum(p.numel() for p in network.parameters())} parameters")
    if options.rival:
        rival = Rival(options.rival, network_of(options), options)
        print(f"nnU-Net: {rival.parameters} parameters")
        steps = {"nnU-Net fp32": lambda: rival.step("fp32"), "nnU-Net bf16": lambda: rival.step("bf16"), **steps}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(step())
    patch = "x".join(map(str, options.patch))
    print(
        f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, patch {patch}, batch {options.batch}"
    )
    against = (
        ["nnU-Net fp32", "nnU-Net bf16"] if options.rival else [n for n in ("plain fp32", "plain bf16") if n in times]
    )
    print(f"| step | s, median (range) | samples/s |{''.join(f' times {name} |' for name in against)}")
    print(f"|---|---|---|{'---|' * len(against)}")
    for name, values in times.items():
        ratios = [[b / v for b, v in zip(times[base], values, strict=True)] for base in against]
        rate = options.batch / statistics.median(values)
        print(f"| {name} | {spread(values, 3)} | {rate:.2f} |{''.join(f' {spread(r, 2)} |' for r in ratios)}")


if __name__ == "__main__":
    main()
