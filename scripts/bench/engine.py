"""Training steps of one network on every engine, and nnU-Net's own step beside them.

    python scripts/bench/engine.py [--network nnunet] [--patch 40 56 40] [--batch 9] [--rounds 5] [--threads 2]
                                   [--rival PYTHON] [--only NAME ...] [--cpu-time] [--profile NAME]

A step is forward, loss (Dice + cross entropy in float32, deep supervision where the network has it), backward, clipping
and SGD with nnU-Net's values, on the same random batch. Each variant is a process of its own, and they take turns, one
step each a round, after `--warm-up` steps. `--rival` names a Python whose environment holds nnunetv2: its network,
loss and step (see nnunet_step.py) then take turns too, in float32 as nnU-Net runs on a CPU and under bf16 autocast; on
a GPU as it runs there, compiled, in float16.
Ratios are taken within a round, against nnU-Net or else plain PyTorch. `kept memory`: engine.keep_memory.

`--cpu-time` counts the CPU seconds of each process instead of those of the clock: for a machine that is busy with other
work, with `--threads 1`. `--profile` prints where the time of one variant goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.conf_dir import conf_dir
from pipeline.config.build import build, fill_derived
from pipeline.networks.engine import Engine, use_engine
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.tasks.base import to_float
from pipeline.tasks.deep_supervision import DeepSupervision
from pipeline.tasks.losses import DiceCELoss
from pipeline.tracking.provenance import cpu_model

CLASSES = 3
FUSED, LAST = Engine("fused"), Engine("fused", "channels_last")
# Engine, bf16 autocast, kept memory.
CPU = {
    "plain fp32": (Engine(), False, False),
    "plain bf16": (Engine(), True, False),
    "plain bf16, channels last": (Engine("stock", "channels_last"), True, False),
    "fused bf16": (FUSED, True, False),
    "fused bf16, channels last": (LAST, True, False),
    "plain fp32, kept memory": (Engine(), False, True),
    "fused fp32, kept memory": (FUSED, False, True),
    "fused fp32, channels last, kept memory": (LAST, False, True),
    "plain bf16, kept memory": (Engine(), True, True),
    "fused bf16, kept memory": (FUSED, True, True),
    "fused bf16, channels last, kept memory": (LAST, True, True),
}
CUDA = {
    "plain fp32": (Engine(), False, False),
    "plain bf16": (Engine(), True, False),
    "plain bf16, channels last": (Engine("stock", "channels_last"), True, False),
    "compiled bf16": (Engine(compile=True), True, False),
    "compiled bf16, channels last": (Engine("stock", "channels_last", compile=True), True, False),
    "compiled bf16 to CUDA graphs, channels last": (Engine("stock", "channels_last", compile="graphs"), True, False),
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


def training_step(options: argparse.Namespace, name: str) -> Callable[[], float]:
    """A function that takes one step of a variant and returns its seconds."""
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    engine, bf16, kept = (CUDA if cuda else CPU)[name]
    if kept:
        keep_freed_memory()
    network = use_engine(network_of(options).to(device), engine, training=True).train()
    torch.manual_seed(1)
    image = torch.randn(options.batch, 1, *options.patch, device=device)
    truth = torch.randint(0, CLASSES, image.shape, device=device, dtype=torch.uint8)
    loss = DeepSupervision(DiceCELoss())
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    clock = time.process_time if options.cpu_time else time.perf_counter

    def step() -> float:
        begun = clock()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            value = loss(to_float(network(image)), truth)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        return clock() - begun

    return step


class Worker:
    """A process that takes a step whenever it is asked to."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def step(self, request: str) -> float:
        """Seconds of one step."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(request, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit("a process of the benchmark ended before its time")
        return float(line)

    def peak(self) -> float:
        """The greatest resident memory so far, GiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def start(options: argparse.Namespace, names: list[str]) -> dict[str, tuple[Worker, str]]:
    """The process of every variant and what to ask of it, by the variant's name."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    steps: dict[str, tuple[Worker, str]] = {}
    if options.rival:
        network = network_of(options)
        plan = {
            "patch": options.patch,
            "batch": options.batch,
            "classes": CLASSES,
            "threads": options.threads,
            "cpu_time": options.cpu_time,
            "features": [stage.blocks[0][0].out_channels for stage in network.encoder],
            "kernels": network.kernel_sizes,
            "strides": network.strides,
        }
        script = str(Path(__file__).with_name("nnunet_step.py"))
        plain = {key: value for key, value in environment.items() if key != "PYTHONPATH"}
        for kind in ("fp16",) if torch.cuda.is_available() else ("fp32", "bf16"):
            steps[f"nnU-Net {kind}"] = Worker([options.rival, script, json.dumps(plan)], plain), kind
    for name in names:
        steps[name] = Worker([sys.executable, __file__, *sys.argv[1:], "--worker", name], environment), "step"
    return steps


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def profile(step: Callable[[], float]) -> str:
    """Where the time of a step goes, by operator and by input shapes."""
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
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rival", metavar="PYTHON")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--profile", metavar="NAME")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.worker:
        step = training_step(options, options.worker)
        for _ in sys.stdin:
            print(step(), flush=True)
        return
    if options.profile:
        step = training_step(options, options.profile)
        for _ in range(options.warm_up):
            step()
        print(profile(step))
        return
    steps = start(options, options.only or list(CUDA if torch.cuda.is_available() else CPU))
    for worker, request in steps.values():
        for _ in range(options.warm_up):
            worker.step(request)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, (worker, request) in steps.items():
            times[name].append(worker.step(request))
    patch = "x".join(map(str, options.patch))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_model()
    print(f"{device}, {options.threads} threads, torch {torch.__version__}")
    print(f"{options.network}, patch {patch}, batch {options.batch}, {'CPU' if options.cpu_time else 'wall'} seconds")
    bases = ("nnU-Net fp32", "nnU-Net bf16", "nnU-Net fp16") if options.rival else ("plain fp32", "plain bf16")
    against = [name for name in bases if name in times]
    print(f"| step | s, median (range) | samples/s | peak, GiB |{''.join(f' times {name} |' for name in against)}")
    print(f"|---|---|---|---|{'---|' * len(against)}")
    for name, values in times.items():
        ratios = [[b / v for b, v in zip(times[base], values, strict=True)] for base in against]
        rate = options.batch / statistics.median(values)
        row = f"| {name} | {spread(values, 3)} | {rate:.2f} | {steps[name][0].peak():.1f} |"
        print(f"{row}{''.join(f' {spread(r, 2)} |' for r in ratios)}")


if __name__ == "__main__":
    main()
