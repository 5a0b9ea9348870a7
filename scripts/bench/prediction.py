"""Time and memory of predicting one volume: our sliding window against MONAI's and nnU-Net's, the same network.

    python scripts/bench/prediction.py [--rounds 5] [--shape 320 320 160] [--patch 128 128 64] [--flips 0 1]
                                       [--network unet] [--rival PYTHON]

From a preprocessed image in memory (one channel, float32) to class indices on the same grid: three classes, overlap
0.5, Gaussian weights, as many windows per forward pass as the pipeline takes by default (nnU-Net: one), bf16 where it
is the faster. MONAI's side is sliding_window_inference and argmax and, with flips, the mean of logits over the flipped
images, as its tutorials do; ours flips each window, and on a CPU computes as the engine's trial chooses there. The
network is `conf/network/NAME.yaml` with random weights. `--rival` names a Python whose environment holds nnunetv2, and
stands for `--network nnunet`: instead of MONAI's, nnU-Net's predictor then takes turns with ours, on its own network of
the same topology, as it predicts here: on a CPU in float32. Every figure comes from a fresh process, the sides
alternate; before its time is taken a process predicts one window. Memory: the greatest resident size while predicting,
above that before the first window. CPU seconds are those of all threads: a busy machine distorts them less. Prints
median (least to greatest), the ratio of each round, and for MONAI the share of voxels in which both agree: windows of
flipped images lie elsewhere, and bf16 rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from scaling import DEVICE, faster_in_bf16

from pipeline.config.build import build, fill_derived
from pipeline.config.compose import compose
from pipeline.inference.native_grid import NativeGrid
from pipeline.inference.predictor import SlidingWindow, all_flips
from pipeline.networks.engine import Engine, use_engine
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.training.device import computes_bf16

CLASSES, OVERLAP = 3, 0.5
SPACING = (1.0, 1.0, 2.0)  # mm


def network_of(name: str, patch: Sequence[int], engine: Engine) -> Any:
    """The network called ``name`` with random weights, the same in every process."""
    derived = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": CLASSES,
        "patch_size": list(patch),
        "spacing": list(SPACING),
    }
    tree = compose("train", [f"network={name}"]).tree
    assert tree is not None
    torch.manual_seed(0)
    network = build(fill_derived(tree, derived)["network"], "network").eval()
    return use_engine(network, engine, training=False)


def sliding(patch: Sequence[int], flips: Sequence[int]) -> SlidingWindow:
    """The pipeline's sliding window with its default number of images per forward pass."""
    return SlidingWindow(patch, overlap=OVERLAP, window_batch="auto", blending="gaussian", mirror_axes=flips)


def monai(network: Any, image: torch.Tensor, patch: Sequence[int], flips: Sequence[int]) -> NDArray[np.uint8]:
    """Class indices by MONAI's sliding window."""
    together = sliding(patch, flips).window_batch
    total: torch.Tensor | None = None
    for dims in all_flips(flips):
        flipped = torch.flip(image[None], dims) if dims else image[None]
        logits = sliding_window_inference(
            flipped, tuple(patch), together, network, overlap=OVERLAP, mode="gaussian", sigma_scale=0.125
        )
        assert isinstance(logits, torch.Tensor)
        logits = torch.flip(logits, dims) if dims else logits
        total = logits if total is None else total.add_(logits)
    assert total is not None
    return total[0].argmax(dim=0).to(torch.uint8).cpu().numpy()


def ours(network: Any, image: torch.Tensor, patch: Sequence[int], flips: Sequence[int]) -> NDArray[np.uint8]:
    """Class indices as the pipeline predicts them."""
    window = sliding(patch, flips)
    shape = image.shape[1:]
    grid = NativeGrid(np.eye(4), np.eye(4), shape, shape)
    probabilities = window.blocks([network], image, lambda logits: torch.softmax(logits, dim=1))
    return grid.fill(probabilities, window.axis(shape))


def memory(name: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process, MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1000


def measure(options: argparse.Namespace) -> None:
    """Predict once and print seconds and MB as JSON."""
    side, shape, patch, flips = options.side, options.shape, options.patch, options.flips
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine()
    if side == "ours" and device.type == "cpu":  # what a measured trial chooses there
        engine = Engine("fused", "channels_last")
        keep_freed_memory()
    network = network_of(options.network, patch, engine).to(device)
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    predict = {"monai": monai, "ours": ours}[side]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins again
        before = memory("VmRSS")  # before the first window, whose memory the process may keep
        predict(network, image[:, : patch[0], : patch[1], : patch[2]], patch, flips)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begun, worked = time.perf_counter(), time.process_time()
        predicted = predict(network, image, patch, flips)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - worked
    np.save(options.mask, predicted)
    found = {"s": seconds, "CPU s": cpu, "MB": memory("VmHWM") - before}
    if device.type == "cuda":
        found["GPU MB"] = torch.cuda.max_memory_allocated() / 1e6
    print(json.dumps(found))


def main() -> int:
    """Print time and memory of both sides, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, default=(320, 320, 160))
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 64))
    parser.add_argument("--flips", type=int, nargs="*", default=(), help="axes; all combinations are averaged")
    parser.add_argument("--network", default="unet")
    parser.add_argument("--rival", metavar="PYTHON")
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--mask", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options)
        return 0
    options.network = "nnunet" if options.rival else options.network
    options.bf16 = computes_bf16(DEVICE.type) and faster_in_bf16()
    rival, name = ("nnunet", "nnU-Net") if options.rival else ("monai", "MONAI")
    print(f"{tuple(options.shape)} voxels, windows {tuple(options.patch)}, flips {list(options.flips)}")
    precision = "bf16" if options.bf16 else "float32"
    print(f"network {options.network}, {torch.get_num_threads()} threads, {precision}")
    print(f"{'':<10}{name:>24}{'ours':>24}{name + ' / ours':>24}")
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, list[dict[str, float]]] = {rival: [], "ours": []}
        for _ in range(options.rounds):
            for side in found:
                found[side].append(_in_a_fresh_process(side, options, Path(folder, f"{side}.npy")))
        masks = [np.load(Path(folder, f"{side}.npy")) for side in found if side != "nnunet"]
    for key in found["ours"][0]:
        theirs, of_us = ([one[key] for one in found[side]] for side in found)
        ratios = [a / b for a, b in zip(theirs, of_us, strict=True)]
        print(f"{key:<10}" + "".join(f"{_median_and_spread(values):>24}" for values in (theirs, of_us, ratios)))
    agreement = f"; the masks agree in {float((masks[0] == masks[-1]).mean()):.4f} of the voxels"
    print(f"median (least to greatest){'' if options.rival else agreement}")
    return 0


def _in_a_fresh_process(side: str, options: argparse.Namespace, mask: Path) -> dict[str, float]:
    environment = dict(os.environ)
    if side == "nnunet":
        network = network_of(options.network, options.patch, Engine())
        plan = {
            "shape": options.shape,
            "patch": options.patch,
            "flips": options.flips,
            "overlap": OVERLAP,
            "classes": CLASSES,
            "threads": torch.get_num_threads(),
            "features": [stage.blocks[0][0].out_channels for stage in network.encoder],
            "kernels": network.kernel_sizes,
            "strides": network.strides,
        }
        command = [options.rival, str(Path(__file__).with_name("nnunet_predict.py")), json.dumps(plan)]
        environment.pop("PYTHONPATH", None)
    else:
        command = [sys.executable, __file__, "--side", side, "--mask", str(mask), "--network", options.network]
        for name, values in (("--shape", options.shape), ("--patch", options.patch), ("--flips", options.flips)):
            command += [name, *map(str, values)]
        command += ["--bf16"] if options.bf16 else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _median_and_spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
