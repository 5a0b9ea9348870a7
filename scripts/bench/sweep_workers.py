"""What a second worker brings: the same sweep by one and by two processes of one thread each.

    python scripts/bench/sweep_workers.py [--trials 8] [--epochs 12] [--rounds 1]

Random trials of the shipped experiment lung_unet (generated scans, prepared before; fold 0), each trained for as many
epochs, with its prediction, its MLflow records and, in the end, the report of the sweep. Two workers: `sweep` started
twice on one folder and one sqlite study. Prints the seconds from the start of the first process to the end of the last,
and the ratio within each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACE = "sweep.space={optimizer.lr: {float: [1.0e-3, 1.0e-2], log: true}}"


def sweep(options: argparse.Namespace, folder: Path, workers: int) -> float:
    """Seconds that ``workers`` processes take for the whole sweep."""
    output = folder / f"sweep_{workers}"
    command = [sys.executable, "-m", "pipeline", "sweep", "experiment=lung_unet", "folds.run=[0]", "trainer.threads=1"]
    command += [f"schedule.epochs={options.epochs}", SPACE, "sweep.sampler=random", f"sweep.trials={options.trials}"]
    command += [f"output={output}", f"cache={options.cache}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]
    start = time.perf_counter()
    with (folder / "log.txt").open("ab") as log:
        processes = []
        for _ in range(workers):
            processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
            while not (output / "sweep.json").exists() and processes[0].poll() is None:
                time.sleep(0.05)
        codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - start
    ended = len(list(output.glob("trials/*/summary.json")))
    if any(codes) or ended != options.trials:
        sys.exit(f"exit statuses {codes}, {ended} trials:\n{(folder / 'log.txt').read_text()[-4000:]}")
    return seconds


def prepare(options: argparse.Namespace) -> None:
    """Generate, check and preprocess the scans, which both sides then find in the cache."""
    command = [sys.executable, "-m", "pipeline", "experiment=lung_unet", "folds.run=[0]", "schedule.epochs=1"]
    command += [f"output={options.cache / 'first'}", f"cache={options.cache}", "tracking.enabled=false"]
    subprocess.run([*command, "trainer.threads=1"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as cache:
        options.cache = Path(cache)
        prepare(options)
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for workers, values in found.items():
                    values.append(sweep(options, Path(folder), workers))
                    print(f"{workers} workers: {values[-1]:.1f} s", file=sys.stderr)
    ratios = [one / two for one, two in zip(found[1], found[2], strict=True)]
    shown = {f"{workers} workers, s": [round(value, 1) for value in values] for workers, values in found.items()}
    shown["ratio"] = [round(ratio, 3) for ratio in ratios]
    print(json.dumps(shown | {"median ratio": round(statistics.median(ratios), 3)}))


if __name__ == "__main__":
    main()
