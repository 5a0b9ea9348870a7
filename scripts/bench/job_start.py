"""What a job costs before it trains: from the start of a fold's process to its first step, part by part.

    python scripts/bench/job_start.py [--rounds 5]

The job is `python -m pipeline fold run=FOLDER fold=1` of a launched lung_unet (generated scans, checked and
preprocessed before, as every job after the first finds them; MLflow records in sqlite; one thread). Prints the median
and range of each part in seconds. A job ends here after its first step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

PARTS = (
    "Python",
    "imports",
    "configuration, data set opened and checked",
    "folds, preprocessed cases found",
    "engine taken from the run, provenance recorded",
    "network, loader, tracking",
    "first step",
)


def job(run: Path) -> None:
    """In the process of the job: note when each part ends, print them as JSON and leave after the first step."""
    import psutil

    marks = [psutil.Process().create_time(), time.time()]

    import lightning_fabric  # noqa: F401
    import mlflow.tracking  # noqa: F401
    import monai.transforms  # noqa: F401
    import pytorch_lightning  # noqa: F401
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    from pipeline import cli
    from pipeline.commands import fold  # noqa: F401
    from pipeline.training import fold_process

    def marked(name: str) -> None:
        """The part before the function of that name ends when it is called."""
        inner = getattr(fold_process, name)

        def call(*args: object, **kwargs: object) -> object:
            marks.append(time.time())
            return inner(*args, **kwargs)

        setattr(fold_process, name, call)

    for name in ("use_device", "begin", "open_tracker"):
        marked(name)
    steps: list[float] = []

    def stepped(*_: object) -> None:
        print(json.dumps([*marks, steps[0], time.time()]), flush=True)
        os._exit(0)

    register_optimizer_step_pre_hook(lambda *_: steps.append(time.time()))
    register_optimizer_step_post_hook(stepped)
    marks.append(time.time())
    cli.main(["fold", f"run={run}", "fold=1", "threads=1"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        job(options.job)
        return
    rows: list[list[float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = folder / "run"
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "experiment=lung_unet",
            "launch=local",
            "launch.engine.processes=1",
        ]
        command += ["folds.run=[0,1]", "schedule.epochs=1", "trainer.threads=1", f"output={run}"]
        command += [f"cache={folder / 'cache'}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for _ in range(options.rounds):
            shutil.rmtree(run / "fold_1")
            done = subprocess.run(
                [sys.executable, __file__, "--job", str(run)], capture_output=True, text=True, check=True
            )
            marks = json.loads(done.stdout.splitlines()[-1])
            rows.append([end - start for start, end in pairwise(marks)])
    print("| part | s, median (range) |\n|---|---|")
    for name, values in zip((*PARTS, "all"), (*zip(*rows, strict=True), [sum(row) for row in rows]), strict=True):
        print(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")


if __name__ == "__main__":
    main()
