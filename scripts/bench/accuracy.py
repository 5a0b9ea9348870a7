"""Dice on the clock: `experiment=auto` and nnU-Net trained for equal seconds, on nnU-Net's own fold of one data set.

    python scripts/bench/accuracy.py --raw Dataset004_Hippocampus --budgets 4m 15m --rival PYTHON
                                     [--precisions bf16 fp32] [--fold 0] [--configuration 3d_fullres] [--keep DIR]
                                     [--overrides OVERRIDE ...]

`--raw`: a data set in nnU-Net's raw format, read by both sides. `--rival`: a Python whose environment holds nnunetv2;
it plans and preprocesses, makes the splits that both sides use, and trains as nnunet_train.py says. Ours gets the
budget and nothing else; overrides are for experiments. Both are scored on the native grid without postprocessing,
nnU-Net with its mirroring. One training at a time; nnU-Net augments in processes of its own beside its threads, as it
does by default. On a GPU nnU-Net is in float16 whatever `--precisions` says, and what it compiles counts. Prints mean
Dice over classes with its 95 % interval (bootstrap over cases), and that of the difference between ours and nnU-Net in
the same cases. Seconds: training; prediction of the fold; and for ours the whole command, from start to the table.
Patches: axes as each side orders them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray

from pipeline.tracking.provenance import cpu_model
from pipeline.training.duration import seconds_of

RESAMPLES = 2000


@dataclass(frozen=True)
class Side:
    """What one training gave; ``dice``: case -> class -> value."""

    name: str
    dice: Mapping[str, Mapping[str, float]]
    steps: int
    batch: int
    patch: Sequence[int]
    words: str

    def per_case(self, cases: Sequence[str]) -> NDArray[np.float64]:
        """Mean over classes of each case; what both masks lack does not count."""
        return np.array([np.nanmean(list(self.dice[case].values())) for case in cases])


def interval(values: NDArray[np.float64]) -> str:
    """Mean and 95 % interval, bootstrap over cases."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def nnunet(options: argparse.Namespace, work: Path, seconds: float, bf16: bool) -> dict[str, Any]:
    """The answer of nnunet_train.py."""
    wanted = {
        "raw": str(options.raw),
        "work": str(work / "nnunet"),
        "seconds": seconds,
        "fold": options.fold,
        "configuration": options.configuration,
        "bf16": bf16,
        "threads": torch.get_num_threads(),
    }
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = str(Path(__file__).with_name("nnunet_train.py"))
    with (work / "nnunet.log").open("a", encoding="utf-8") as log:
        command = [options.rival, script, json.dumps(wanted)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def of_nnunet(options: argparse.Namespace, work: Path, budget: str, precision: str) -> Side:
    """nnU-Net in one precision."""
    found = nnunet(options, work, seconds_of(budget), precision == "bf16")
    words = f"{found['training_s']:.0f} training, {found['predicting_s']:.0f} prediction"
    return Side(f"nnU-Net {precision}", found["dice"], found["steps"], found["batch"], found["patch"], words)


def ours(options: argparse.Namespace, work: Path, budget: str, splits: str) -> Side:
    """``experiment=auto`` with the budget."""
    output = Path(tempfile.mkdtemp(prefix=f"ours_{budget}_", dir=work))
    command = [sys.executable, "-m", "pipeline", "train", "experiment=auto", "data=nnunet", f"data.root={options.raw}"]
    command += ["folds=predefined", f"folds.file={splits}", f"folds.run=[{options.fold}]", f"plan.budget={budget}"]
    command += ["evaluation.postprocess=none", f"output={output}", *options.overrides]
    begun = time.perf_counter()
    with (work / f"ours_{budget}.log").open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    whole = time.perf_counter() - begun
    table = pd.read_csv(output / "cases.csv", dtype={"case_id": str})
    clock = pd.read_csv(output / f"fold_{options.fold}" / "metrics.csv")
    sampling = yaml.safe_load((output / "config.yaml").read_text(encoding="utf-8"))
    patch, batch = sampling["derived"]["patch_size"], sampling["sampling"]["batch_size"]
    dice = {str(case): dict(zip(rows["class"], rows["dice"], strict=True)) for case, rows in table.groupby("case_id")}
    words = f"{clock['seconds'].iloc[-1]:.0f} training, {whole:.0f} in all"
    return Side("ours", dice, int(clock["step"].iloc[-1]), batch, patch, words)


def main() -> None:
    """Train all sides at every budget and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--budgets", nargs="+", default=["4m"])
    parser.add_argument("--rival", metavar="PYTHON", required=True)
    parser.add_argument("--precisions", nargs="+", default=["bf16"], choices=["bf16", "fp32"])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--overrides", nargs="+", default=[])
    options = parser.parse_args()
    options.raw = options.raw.resolve()
    with tempfile.TemporaryDirectory() as folder:
        work = (options.keep or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        splits = nnunet(options, work, 0, False)["splits"]
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_model()
        print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        print(f"{options.raw.name}, fold {options.fold}")
        print("| budget | | Dice, mean (95 %) | each class | ours minus this | steps x batch | patch | s |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for budget in options.budgets:
            us = ours(options, work, budget, splits)
            show(budget, us, us)
            for precision in options.precisions:
                show(budget, of_nnunet(options, work, budget, precision), us)


def show(budget: str, side: Side, us: Side) -> None:
    """One row."""
    cases = sorted(us.dice)
    missing = set(cases) ^ set(side.dice)
    if missing:
        sys.exit(f"the sides scored other cases: {', '.join(sorted(missing)[:5])}")
    values = side.per_case(cases)
    classes = list(next(iter(us.dice.values())))
    each = ", ".join(f"{name} {np.nanmean([side.dice[case][name] for case in cases]):.3f}" for name in classes)
    difference = "" if side is us else interval(us.per_case(cases) - values)
    patch = "x".join(map(str, side.patch))
    row = [budget, side.name, interval(values), each, difference, f"{side.steps} x {side.batch}", patch, side.words]
    print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
