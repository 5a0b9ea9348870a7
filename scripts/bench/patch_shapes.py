"""What the shape of a patch costs: a short axis last or first in a training step, windows alone or in pairs.

    python scripts/bench/patch_shapes.py [--network nnunet] [--flat 128 128 8] [--window 64 64 64] [--rounds 5]

Steps and networks are those of scaling.py, batch 2; both sides of a pair take turns in one process. Prediction: an
image of two windows an edge, overlap 0.5, one flip. Prints medians (least to greatest) and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

import torch
from scaling import DEVICE, faster_in_bf16, network_of, step_of, synchronized

from pipeline.inference.predictor import SlidingWindow
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.training.device import computes_bf16


def prediction(name: str, window: Sequence[int], together: int, bf16: bool) -> Callable[[], None]:
    """A prediction with so many images a forward pass."""
    network = network_of(name, window, False)
    sliding = SlidingWindow(window, overlap=0.5, window_batch=together, blending="gaussian", mirror_axes=[0])
    image = torch.randn(1, *(2 * edge for edge in window), device=DEVICE)

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            for _ in sliding.blocks([network], image):
                pass

    return predict


def compare(sides: dict[str, Callable[[], None]], rounds: int) -> None:
    """Two rows: the sides in turn, and how many times as fast the second is."""
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
    parser.add_argument("--window", type=int, nargs=3, default=[64, 64, 64])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if DEVICE.type == "cpu":
        keep_freed_memory()
    bf16 = computes_bf16(DEVICE.type) and faster_in_bf16()
    last, first = options.flat, [options.flat[2], *options.flat[:2]]
    print(f"{options.network}, {'bf16' if bf16 else 'float32'}\n\n| | s | times as fast |\n|---|---|---|")
    step = {f"step, {'x'.join(map(str, shape))}": step_of(options.network, shape, 2, bf16) for shape in (last, first)}
    compare(step, options.rounds)
    compare(
        {
            f"prediction, {count} at a time": prediction(options.network, options.window, count, bf16)
            for count in (1, 2)
        },
        options.rounds,
    )


if __name__ == "__main__":
    main()
