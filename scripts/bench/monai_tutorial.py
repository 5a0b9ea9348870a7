"""Training with MONAI's UNet: the loop of MONAI's segmentation tutorial against the pipeline.

    python scripts/bench/monai_tutorial.py --root Task04_Hippocampus [--patch 48 64 48] [--rounds 3] [--steps 120]

The tutorial's side follows MONAI's spleen_segmentation_3d: CacheDataset of all cases, LoadImaged to CropForegroundd
once, RandCropByPosNegLabeld with four samples of each case, batches of two cases, UNet 16 to 256 with two residual
units and batch norm, DiceLoss, Adam 1e-4, in float32. The pipeline's side is its train command with
network=monai_unet of the same channels, Dice of the foreground, Adam, the same patch and 8 patches a step, and its own
defaults for the rest: the faster precision, gradient clipping, epochs of 20 steps (the tutorial's have 80). No
augmentation on either side. Every round starts a process for each side; the first quarter of its steps, in which caches
fill, does not count. Prints samples a second, median (range) of the rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

CHANNELS, STRIDES, CASES, SAMPLES, EPOCH = (16, 32, 64, 128, 256), (2, 2, 2, 2), 2, 4, 20


def tutorial(options: argparse.Namespace) -> float:
    """Samples a second of MONAI's loop."""
    from monai import transforms
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceLoss
    from monai.networks.layers import Norm
    from monai.networks.nets import UNet

    keys = ["image", "label"]
    listed = json.loads((options.root / "dataset.json").read_text(encoding="utf-8"))
    classes = len(listed["labels"])
    files = [{key: str(options.root / entry[key]) for key in keys} for entry in listed["training"][: options.cases]]
    chain = transforms.Compose(
        [
            transforms.LoadImaged(keys),
            transforms.EnsureChannelFirstd(keys),
            transforms.Orientationd(keys, axcodes="RAS", labels=None),
            transforms.Spacingd(keys, pixdim=options.spacing, mode=("bilinear", "nearest")),
            transforms.ScaleIntensityd(["image"]),
            transforms.CropForegroundd(keys, source_key="image"),
            transforms.SpatialPadd(keys, options.patch),
            transforms.RandCropByPosNegLabeld(keys, "label", options.patch, pos=1, neg=1, num_samples=SAMPLES),
        ]
    )
    data = CacheDataset(files, chain, cache_rate=1.0, progress=False)
    loader = DataLoader(data, batch_size=CASES, shuffle=True, num_workers=0, drop_last=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = UNet(3, 1, classes, CHANNELS, STRIDES, num_res_units=2, norm=Norm.BATCH).to(device)
    loss = DiceLoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    ends, steps = [], 0
    while steps < options.steps:
        for batch in loader:
            optimizer.zero_grad()
            value = loss(network(batch["image"].to(device)), batch["label"].to(device))
            value.backward()
            optimizer.step()
            value.item()  # the tutorial adds it to the epoch's loss
            ends.append(time.perf_counter())
            steps += 1
            if steps == options.steps:
                break
    later = ends[len(ends) // 4 :]
    return CASES * SAMPLES * (len(later) - 1) / (later[-1] - later[0])


def pipeline(options: argparse.Namespace) -> float:
    """Samples a second of the train command, from the clock in its metrics.csv."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        channels = [f"network.network.channels={list(CHANNELS)}", f"network.network.strides={list(STRIDES)}"]
        command = [sys.executable, "-m", "pipeline", "train", "data=decathlon", f"data.root={options.root}"]
        command += ["transforms=mri_3d", f"transforms.spacing={options.spacing}", "augmentation=none"]
        command += ["network=monai_unet", "network.multiple=16", "network.network.norm=BATCH", *channels]
        command += ["loss=dice", "optimizer=adam", "optimizer.lr=0.0001", "trainer.ema_decay=null", "folds.run=[0]"]
        command += ["sampling.foreground_fraction=0.5", f"sampling.patch_size={options.patch}"]
        command += [f"sampling.batch_size={CASES * SAMPLES}", f"sampling.batches_per_epoch={EPOCH}"]
        command += [f"trainer.max_steps={options.steps}", "schedule.epochs=1000", "trainer.validate_every=1000"]
        command += ["evaluation.figures=false", "evaluation.postprocess=none", f"output={output}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(done.stdout)
        with (output / "fold_0" / "metrics.csv").open(encoding="utf-8") as file:
            ends = [float(row["seconds"]) for row in csv.DictReader(file)]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    later = seconds[len(seconds) // 4 : -1]  # the last epoch holds a validation
    return CASES * SAMPLES * EPOCH * len(later) / sum(later)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="a Decathlon folder of one modality")
    parser.add_argument("--patch", type=int, nargs=3, default=[48, 64, 48], help="multiples of 16")
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 1.0, 1.0])
    parser.add_argument("--cases", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--side", choices=["tutorial"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.root = options.root.resolve()
    if any(extent % 16 for extent in options.patch):
        parser.error("--patch: the network halves four times, so give multiples of 16")
    if options.side:
        print(tutorial(options))
        return
    found: dict[str, list[float]] = {"MONAI's tutorial": [], "pipeline": []}
    for _ in range(options.rounds):
        command = [sys.executable, __file__, *sys.argv[1:], "--side", "tutorial"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found["MONAI's tutorial"].append(float(done.stdout.split()[-1]))
        found["pipeline"].append(pipeline(options))
    print("| | samples/s, median (range) |\n|---|---|")
    for name, values in found.items():
        print(f"| {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) |")
    ratios = [ours / theirs for theirs, ours in zip(*found.values(), strict=True)]
    print(f"| ratio | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


if __name__ == "__main__":
    main()
