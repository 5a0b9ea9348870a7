"""What the shape of a patch costs: a short axis last or first in a training step, and windows at prediction.

    python scripts/bench/patch_shapes.py [--network nnunet] [--flat 128 128 8] [--rounds 5]
                                         [--windows 32x48x32 8x128x128 64x64x64 128x128x64]

Steps and networks are those of scaling.py, batch 2; the sides take turns in one process. Windows: forward passes of two
windows, one after the other by PyTorch's own choice of kernels, so by oneDNN (as prediction does on a CPU, in float32),
and both at a time. Prints medians (least to greatest), and how many times as fast as the first of its kind.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from scaling import DEVICE, faster_in_bf16, network_of, step_of, synchronized

from pipeline.inference.one_image import OneImageByOneDNN
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.training.device import computes_bf16


def windows(name: str, shape: Sequence[int], bf16: bool) -> dict[str, Callable[[], None]]:
    """Forward passes of two windows in each way."""
    network = network_of(name, shape, False)
    pair = torch.randn(2, 1, *shape, device=DEVICE)

    def forward(together: int, mode: Callable[[], AbstractContextManager[object]]) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16), mode():
                for images in pair.split(together):
                    network(images)

        return run

    size = f"two windows {'x'.join(map(str, shape))}"
    found = {f"{size}, by PyTorch's choice": forward(1, nullcontext)}
    if DEVICE.type == "cpu":
        found[f"{size}, by oneDNN"] = forward(1, OneImageByOneDNN)
    return {**found, f"{size}, at a time": forward(2, nullcontext)}


def compare(sides: dict[str, Callable[[], None]], rounds: int) -> None:
    """A row a side, which take turns, and how many times as fast as the first it is."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):  # the first does not count
        for name, action in sides.items():
            begun = synchronized()
            action()
            if turn:
                found[name].append(synchronized() - begun)
    first = statistics.median(next(iter(found.values())))
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        print(
            f"| {name} | {middle:.3f} ({min(seconds):.3f} to {max(seconds):.3f}) | {first / middle:.2f} |", flush=True
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="nnunet")
    parser.add_argument("--flat", type=int, nargs=3, default=[128, 128, 8], help="a patch, its short axis last")
    parser.add_argument("--windows", nargs="+", default=["32x48x32", "8x128x128", "64x64x64", "128x128x64"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if DEVICE.type == "cpu":
        keep_freed_memory()
    bf16 = computes_bf16(DEVICE.type) and faster_in_bf16()
    last, first = options.flat, [options.flat[2], *options.flat[:2]]
    print(f"{options.network}, {'bf16' if bf16 else 'float32'}\n\n| | s | times as fast |\n|---|---|---|")
    step = {f"step, {'x'.join(map(str, shape))}": step_of(options.network, shape, 2, bf16) for shape in (last, first)}
    compare(step, options.rounds)
    for window in options.windows:
        compare(windows(options.network, [int(edge) for edge in window.split("x")], bf16), options.rounds)


if __name__ == "__main__":
    main()
