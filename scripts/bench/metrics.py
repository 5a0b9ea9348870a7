"""Time the metrics of one segmented volume against MONAI's: Dice, HD95 and surface Dice, two foreground classes.

    python scripts/bench/metrics.py [--repeats 7] [--shape 320 320 160]

Both sides start from masks in memory and alternate within one process. MONAI gets its one-hot tensors ready made, so
that only its metrics are timed; ours starts from class indices and gives volume errors too. Exits 1 if a value differs
by more than 1e-5.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

from pipeline.evaluation.segmentation_metrics import segmentation_case_metrics

SPACING = (0.8, 0.8, 1.5)
TOLERANCE_MM = 2.0
METRICS = ("dice", "hd95_mm", "surface_dice")


def lung_and_tumour(shape: Sequence[int], shift: float, rough: float) -> NDArray[np.uint8]:
    """Two ellipsoids with wavy borders and a ball inside one of them: (X, Y, Z) class indices."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    wave = rough * np.sin(23 * x + shift) * np.cos(19 * y) * np.sin(17 * z)
    mask = np.zeros(shape, np.uint8)
    for centre in (-0.45, 0.45):
        mask[((x - centre - shift) / 0.36) ** 2 + (y / 0.6) ** 2 + (z / 0.85) ** 2 + wave < 1] = 1
    mask[((x - 0.5) / 0.14) ** 2 + ((y - 0.1 - shift) / 0.14) ** 2 + ((z - 0.1) / 0.25) ** 2 + wave < 1] = 2
    return mask


def monai_metrics(prediction: torch.Tensor, truth: torch.Tensor) -> NDArray[np.float64]:
    """Dice, HD95 and surface Dice of one-hot (1, C, X, Y, Z) masks: (metrics, foreground classes)."""
    tolerances = [TOLERANCE_MM] * (truth.shape[1] - 1)
    return np.array(
        [
            compute_dice(prediction, truth, include_background=False)[0].numpy(),
            compute_hausdorff_distance(prediction, truth, percentile=95, spacing=SPACING)[0].numpy(),
            compute_surface_dice(prediction, truth, tolerances, spacing=SPACING)[0].numpy(),
        ],
        dtype=float,
    )


def our_metrics(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The same from class indices."""
    rows = segmentation_case_metrics(
        prediction, truth, class_names=("background", "lung", "tumour"), spacing=SPACING, tolerance_mm=TOLERANCE_MM
    )
    return np.array([[row[metric] for row in rows] for metric in METRICS])


def one_hot(mask: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, X, Y, Z) float32."""
    return torch.stack([torch.from_numpy(mask == index) for index in range(3)])[None].float()


def timed(call: Callable[[], NDArray[np.float64]]) -> tuple[float, NDArray[np.float64]]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> int:
    """Print both sides, their ratio and the greatest difference for each pair of masks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shape", type=int, nargs=3, default=(320, 320, 160))
    options = parser.parse_args()
    print(f"{tuple(options.shape)} voxels, {options.repeats} repeats, {torch.get_num_threads()} torch threads")
    print(f"{'masks':<12}{'MONAI s':>18}{'ours s':>18}{'ratio':>18}{'difference':>13}")
    truth = lung_and_tumour(options.shape, 0.0, 0.05)
    worst = 0.0
    for name, shift, rough in (("close", 0.004, 0.05), ("typical", 0.015, 0.12), ("poor", 0.08, 0.6)):
        prediction = lung_and_tumour(options.shape, shift, rough)
        hot_prediction, hot_truth = one_hot(prediction), one_hot(truth)
        theirs, ours, difference = [], [], 0.0
        for repeat in range(options.repeats + 1):
            seconds_theirs, values_theirs = timed(lambda p=hot_prediction, t=hot_truth: monai_metrics(p, t))
            seconds_ours, values_ours = timed(lambda p=prediction: our_metrics(p, truth))
            difference = max(difference, float(np.abs(values_theirs - values_ours).max()))
            if repeat:  # the first of each warms up
                theirs.append(seconds_theirs)
                ours.append(seconds_ours)
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        columns = "".join(f"{_median_and_spread(values):>18}" for values in (theirs, ours, ratios))
        print(f"{name:<12}{columns}{difference:>13.1e}")
        worst = max(worst, difference)
    print("median (least to greatest)")
    return int(worst > 1e-5)


def _median_and_spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
