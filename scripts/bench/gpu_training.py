"""Training on a GPU as users run it: samples a second, and how busy the device is, nnU-Net beside us.

    python scripts/bench/gpu_training.py --raw Dataset004_Hippocampus --rival PYTHON [--seconds 30] [--rounds 3]
                                         [--overrides OVERRIDE ...]

`--raw`: a data set in nnU-Net's raw format, read by both sides. Both train nnU-Net's own plan for it (3d_fullres, fold
0): the same network, patch, batch, loss, optimizer and augmentation, each with its own loader, in turn, `--rounds`
times. nnU-Net runs its own trainer as nnunet_train.py says: compiled, float16, its augmentation in processes beside.
Ours is `experiment=auto` without a budget. Counted are the seconds after each side has compiled and warmed up, without
validation. Busy: share of the time in which the device runs a kernel, as its driver counts it, ten times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pynvml
import torch
import yaml

WARM_UP = 60  # steps


@dataclass
class Busy:
    """Samples of the device's use while this runs: (seconds since 1970, per cent)."""

    samples: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(0).uuid  # of the one that trains: NVML counts the hidden ones too
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.samples.append((time.time(), float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)))
            time.sleep(0.1)

    def between(self, first: float, last: float) -> float:
        """Mean per cent in a span."""
        return statistics.mean([use for when, use in self.samples if first + 1 <= when <= last] or [float("nan")])


def rival(options: argparse.Namespace, work: Path, busy: Busy, seconds: float) -> tuple[float, float, str]:
    """Samples a second and per cent busy of nnU-Net, and what it trained."""
    wanted = {
        "raw": str(options.raw),
        "work": str(work / "nnunet"),
        "seconds": seconds,
        "fold": 0,
        "configuration": "3d_fullres",
        "bf16": False,
        "threads": torch.get_num_threads(),
        "warm_up": WARM_UP,
        "validate": False,
    }
    command = [options.rival, str(Path(__file__).with_name("nnunet_train.py")), json.dumps(wanted)]
    with (work / "nnunet.log").open("a", encoding="utf-8") as log:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=log, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if not seconds:
        return 0.0, 0.0, found["splits"]
    patch = "x".join(map(str, sorted(found["patch"])))
    rate = found["steps"] * found["batch"] / found["training_s"]
    return rate, busy.between(*found["clock"]), f"patch {patch}, batch {found['batch']}"


def ours(options: argparse.Namespace, work: Path, busy: Busy, splits: str) -> tuple[float, float, str]:
    """The same of the pipeline."""
    output = Path(tempfile.mkdtemp(prefix="ours_", dir=work))
    command = [sys.executable, "-m", "pipeline", "train", "experiment=auto", "data=nnunet", f"data.root={options.raw}"]
    command += ["folds=predefined", f"folds.file={splits}", "folds.run=[0]", "plan.accelerator=gpu", "trainer=gpu"]
    command += [
        "sampling.batches_per_epoch=100",
        "trainer.validate_every=100000",
        "evaluation.figures=false",
        "tracking.enabled=false",
    ]
    command += [f"trainer.max_time={options.seconds + 600}s", f"output={output}", f"cache={work / 'cache'}"]
    with (work / "ours.log").open("a", encoding="utf-8") as log:
        run = [*command, *options.overrides]
        training = subprocess.Popen(run, stdout=log, stderr=subprocess.STDOUT)
        rows = output / "fold_0" / "metrics.csv"
        table, first = pd.DataFrame(), 0.0
        while training.poll() is None:  # rows are read as they come: what follows training is not waited for
            time.sleep(0.2)
            table = pd.read_csv(rows) if rows.exists() else table
            if len(table) and not first:
                first = time.time()
            if len(table) > 2 and table["seconds"].iloc[-1] - table["seconds"].iloc[0] >= options.seconds:
                break
        last = time.time()
        training.kill()
        training.wait()
    if len(table) < 2 or training.returncode != -signal.SIGKILL:  # it ended by itself
        sys.exit(f"training ended too early: see {work / 'ours.log'}")
    config = yaml.safe_load((output / "config.yaml").read_text(encoding="utf-8"))
    patch, batch = config["derived"]["patch_size"], config["sampling"]["batch_size"]
    steps, seconds = (table[name].iloc[-1] - table[name].iloc[0] for name in ("step", "seconds"))
    print({name: config["engine"][name] for name in ("norm", "memory_format", "compile")}, file=sys.stderr)
    return (
        steps * batch / seconds,
        busy.between(first, last),
        f"patch {'x'.join(map(str, sorted(patch)))}, batch {batch}",
    )


def spread(values: list[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Train both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--rival", metavar="PYTHON", required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--overrides", nargs="+", default=[])
    options = parser.parse_args()
    options.raw = options.raw.resolve()
    found: dict[str, list[tuple[float, float, str]]] = {"nnU-Net": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        work, busy = (options.keep or Path(folder)).resolve(), Busy()
        work.mkdir(parents=True, exist_ok=True)
        splits = rival(options, work, busy, 0)[2]
        for _ in range(options.rounds):
            found["nnU-Net"].append(rival(options, work, busy, options.seconds))
            found["ours"].append(ours(options, work, busy, splits))
            print({name: rounds[-1] for name, rounds in found.items()}, file=sys.stderr, flush=True)
    print(f"{torch.cuda.get_device_name()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}")
    print("| | trained | samples/s | device busy, % |\n|---|---|---|---|")
    for name, rounds in found.items():
        rates, shares = [rate for rate, _, _ in rounds], [share for _, share, _ in rounds]
        print(f"| {name} | {rounds[0][2]} | {spread(rates)} | {spread(shares)} |")
    ratios = [us[0] / them[0] for us, them in zip(found["ours"], found["nnU-Net"], strict=True)]
    print(f"| ratio | | {spread(ratios, 2)} | |")


if __name__ == "__main__":
    main()
