"""How time grows: a step with patch and batch, samples a second with workers and threads, prediction with volume.

    python scripts/bench/scaling.py [--output docs/images/scaling.png] [--networks unet nnunet] [--least-seconds 2]
                                    [--parts patch batch cores volume]

The ceiling is what the arithmetic alone would take: the floating-point operations of convolutions (counted by torch,
2 an addition and multiplication) at the rate of the best convolution that was found here (64 to 128 features, 3x3x3).
Everything is in float32 or, where a step of nnU-Net's network is faster in it, bf16. Steps: forward, loss,
backward, clipping, AdamW, on random patches. Workers and threads: the pipeline as it is run, `train experiment=auto` on
generated CTs, nnU-Net's augmentation included, from the clock in metrics.csv;
ceiling: the rate of one thread times the threads. Prediction: sliding window, overlap 0.5, windows 64x64x64, to class
indices; ceiling: the operations of its windows.
Prints a table of medians and ranges, and draws them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
import yaml
from matplotlib import pyplot
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.build import build, fill_derived
from pipeline.config.compose import compose
from pipeline.inference.native_grid import NativeGrid
from pipeline.inference.predictor import SlidingWindow
from pipeline.inference.windows import window_starts
from pipeline.networks.engine import Engine, use_engine
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.tasks.base import to_float
from pipeline.tasks.deep_supervision import DeepSupervision
from pipeline.tasks.losses import DiceCELoss
from pipeline.tracking.provenance import cpu_model
from pipeline.training.device import computes_bf16

CLASSES = 3
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ENGINE = Engine("fused", "channels_last") if DEVICE.type == "cpu" else Engine("stock", "channels_last")
PATCHES = (32, 48, 64, 80, 96, 128)
BATCHES = (1, 2, 4, 8, 16)
VOLUMES = ((64, 64, 64), (128, 128, 64), (128, 128, 128), (192, 192, 128), (256, 256, 128), (320, 320, 160))


@dataclass(frozen=True)
class Point:
    """One measurement: ``seconds`` of each repeat, ``ceiling`` (s) of the arithmetic."""

    part: str
    series: str
    x: float
    label: str
    seconds: tuple[float, ...]
    ceiling: float


def synchronized() -> float:
    """Seconds of the clock, when the device has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def repeats(action: Callable[[], Any], least_seconds: float) -> tuple[float, ...]:
    """Seconds of each call, at least three, after one that does not count."""
    action()
    found: list[float] = []
    while len(found) < 3 or sum(found) < least_seconds:
        begun = synchronized()
        action()
        found.append(synchronized() - begun)
    return tuple(found)


def best_rate(bf16: bool) -> float:
    """Operations a second of the best convolution found, forward."""
    rates = []
    for features, size in itertools.product((64, 128), (24, 48)):
        layer = torch.nn.Conv3d(features, features, 3, padding=1, bias=False).to(DEVICE)
        image = torch.randn(2, features, size, size, size, device=DEVICE)
        layer, image = layer.to(memory_format=torch.channels_last_3d), image.to(memory_format=torch.channels_last_3d)
        kind = torch.bfloat16 if bf16 else torch.float32
        layer, image = layer.to(kind), image.to(kind)
        with torch.inference_mode():
            seconds = min(repeats(lambda layer=layer, image=image: layer(image), 1.0))
        rates.append(2 * image.numel() * features * 27 / seconds)
    return max(rates)


def network_of(name: str, patch: Sequence[int], training: bool) -> Any:
    """The network of conf/network/NAME.yaml with random weights."""
    derived = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": CLASSES,
        "patch_size": list(patch),
        "spacing": [1.0] * 3,
    }
    tree = compose("train", [f"network={name}"]).tree
    assert tree is not None
    torch.manual_seed(0)
    network = build(fill_derived(tree, derived)["network"], "network").to(DEVICE)
    return use_engine(network, ENGINE, training=training).train(training)


def operations(action: Callable[[], Any]) -> int:
    """Floating-point operations of what is called."""
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def step_of(name: str, patch: Sequence[int], batch: int, bf16: bool) -> Callable[[], None]:
    """A training step on random patches."""
    network = network_of(name, patch, True)
    image = torch.randn(batch, 1, *patch, device=DEVICE)
    truth = torch.randint(0, CLASSES, image.shape, device=DEVICE, dtype=torch.uint8)
    loss = DeepSupervision(DiceCELoss())
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            value = loss(to_float(network(image)), truth)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()

    return step


def faster_in_bf16() -> bool:
    """Whether a step takes less time in bf16 than in float32."""
    single, half = (min(repeats(step_of("nnunet", (32, 32, 32), 2, bf16), 1.0)) for bf16 in (False, True))
    return half < single


def steps(part: str, options: argparse.Namespace, rate: float) -> list[Point]:
    """Seconds a step against patch or batch."""
    found = []
    for name in options.networks:
        cases = [((size,) * 3, 2) for size in PATCHES] if part == "patch" else [((48,) * 3, size) for size in BATCHES]
        for patch, batch in cases:
            if name == "nnunet" and patch[0] * batch > 2 * options.nnunet_patch:
                continue
            step = step_of(name, patch, batch, options.bf16)
            ceiling = operations(step) / rate
            x, label = (patch[0] ** 3, f"{patch[0]}^3") if part == "patch" else (batch, str(batch))
            found.append(Point(part, name, x, label, repeats(step, options.least_seconds), ceiling))
            show(found[-1])
    return found


def cores(options: argparse.Namespace) -> list[Point]:
    """Seconds a sample of the whole training command, against threads and workers."""
    found: list[Point] = []
    here = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for workers in (0, 1, 2):
            alone = 0.0
            for threads in sorted({1, *(2**power for power in range(1, 8) if 2**power <= here), here}):
                output = Path(folder, f"{workers}_{threads}")
                command = [sys.executable, "-m", "pipeline", "train", "experiment=auto", "data=phantom_lung"]
                command += ["augmentation=nnunet", f"trainer.workers={workers}", f"trainer.threads={threads}"]
                command += [f"trainer.max_steps={options.steps}", "sampling.batches_per_epoch=10", "folds.run=[0]"]
                command += ["trainer.validate_every=1000", "evaluation.figures=false", f"output={output}"]
                command += ["plan.budget=10m", "schedule.budget=null", "schedule.epochs=1000", *options.overrides]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                with (output / "fold_0" / "metrics.csv").open(encoding="utf-8") as file:
                    clock = [float(row["seconds"]) for row in csv.DictReader(file)]
                batch = yaml.safe_load((output / "config.yaml").read_text(encoding="utf-8"))["sampling"]["batch_size"]
                seconds = [(b - a) / (10 * batch) for a, b in itertools.pairwise(clock)][1:-1]
                alone = alone or statistics.median(seconds)
                series = f"{workers} workers"
                found.append(Point("cores", series, threads, str(threads), tuple(seconds), alone / threads))
                show(found[-1])
    return found


def volume(options: argparse.Namespace, rate: float) -> list[Point]:
    """Seconds of a prediction against the volume."""
    found = []
    patch = (64, 64, 64)
    for name in options.networks:
        network = network_of(name, patch, False)
        with torch.inference_mode():
            of_window = operations(lambda network=network: network(torch.randn(1, 1, *patch, device=DEVICE)))
        for shape in VOLUMES:
            if name == "nnunet" and shape[0] > options.nnunet_volume:
                continue
            window = SlidingWindow(patch, overlap=0.5, window_batch="auto", blending="gaussian", mirror_axes=())
            grid = NativeGrid(np.eye(4), np.eye(4), shape, shape)
            image = torch.randn(1, *shape, device=DEVICE)

            def predict(network: Any = network, image: Any = image, window: Any = window, grid: Any = grid) -> None:
                with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=options.bf16):
                    blocks = window.blocks([network], image, lambda logits: torch.softmax(logits, dim=1))
                    grid.fill(blocks, window.axis(image.shape[1:]))

            places = (window_starts(size, edge, window.overlap) for size, edge in zip(shape, patch, strict=True))
            ceiling = math.prod(map(len, places)) * of_window / rate
            label = "x".join(map(str, shape))
            seconds = repeats(predict, options.least_seconds)
            found.append(Point("volume", name, image.numel(), label, seconds, ceiling))
            show(found[-1])
    return found


def show(point: Point) -> None:
    """One row of the table."""
    middle, least, most = statistics.median(point.seconds), min(point.seconds), max(point.seconds)
    spread = f"{middle:.4g} ({least:.4g} to {most:.4g})"
    print(f"| {point.part} | {point.series} | {point.label} | {spread} | {point.ceiling:.4g} |", flush=True)


TITLES = {
    "patch": ("Training step, batch 2", "voxels of the patch", "s a step"),
    "batch": ("Training step, patch 48x48x48", "batch", "s a step"),
    "cores": ("Training with the pipeline", "threads", "samples a second"),
    "volume": ("Prediction", "voxels of the volume", "s"),
}


def draw(points: Sequence[Point], file: Path, heading: str) -> None:
    """One panel a part: measurements with their range, and the ceiling dashed."""
    parts = [part for part in TITLES if any(point.part == part for point in points)]
    figure, axes = pyplot.subplots(1, len(parts), figsize=(4.2 * len(parts), 4), squeeze=False)
    for axis, part in zip(axes[0], parts, strict=True):
        title, x_label, y_label = TITLES[part]
        every = sorted({point.series for point in points if point.part == part})
        for colour, series in zip(("#1f5fa8", "#c4521b", "#3a7d44"), every, strict=False):
            chosen = [point for point in points if point.part == part and point.series == series]
            rate = part == "cores"
            x = [point.x for point in chosen]
            y = [statistics.median(point.seconds) for point in chosen]
            low, high = [min(point.seconds) for point in chosen], [max(point.seconds) for point in chosen]
            ceiling = [point.ceiling for point in chosen]
            if rate:
                y, low, high, ceiling = ([1 / value for value in values] for values in (y, high, low, ceiling))
            error = [[b - a for a, b in zip(low, y, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
            axis.errorbar(x, y, error, color=colour, marker="o", markersize=4, capsize=2, label=series)
            ceiling_label = "threads x one thread" if rate else "arithmetic alone"
            axis.plot(x, ceiling, color=colour, linestyle="--", linewidth=1, label=f"{series}, {ceiling_label}")
        if part != "cores":
            axis.set(xscale="log", yscale="log")
        else:
            axis.set(xticks=sorted({point.x for point in points if point.part == part}), ylim=(0, None))
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle(heading, fontsize=9)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("scaling.png"))
    parser.add_argument("--networks", nargs="+", default=["unet", "nnunet"])
    parser.add_argument("--parts", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--least-seconds", type=float, default=2.0, help="of the repeats of one point")
    parser.add_argument("--nnunet-patch", type=int, default=64, help="largest edge for nnU-Net's network")
    parser.add_argument("--nnunet-volume", type=int, default=128, help="the same of a volume")
    parser.add_argument("--steps", type=int, default=60, help="of the training command")
    parser.add_argument("--overrides", nargs="*", default=[], help="of the training command")
    options = parser.parse_args()
    if DEVICE.type == "cpu":
        keep_freed_memory()
    options.bf16 = computes_bf16(DEVICE.type) and faster_in_bf16()
    rate = best_rate(options.bf16)
    here = f"{cpu_model()}, {torch.get_num_threads()} threads"
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else here
    kind = "bf16" if options.bf16 else "float32"
    heading = f"{device}, torch {torch.__version__}, {kind}; best convolution {rate / 1e9:.0f} GFLOP/s"
    print(f"{heading}\n\n| part | | | s, median (range) | ceiling |\n|---|---|---|---|---|")
    points: list[Point] = []
    for part in options.parts:
        if part in ("patch", "batch"):
            points += steps(part, options, rate)
        else:
            points += cores(options) if part == "cores" else volume(options, rate)
    draw(points, options.output, heading)


if __name__ == "__main__":
    main()
