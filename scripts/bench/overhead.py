"""What saving and recording cost a training: resume points and MLflow on against both off, and through an outage.

    python scripts/bench/overhead.py --root Task04_Hippocampus [--rounds 5] [--steps 400] [--outage 20] [--threads N]

The shipped experiment hippocampus_unet with all its defaults, but for a number of steps instead of a time, 50 batches
an epoch and one validation at the end. Sides, in turn: neither resume points nor tracking; the defaults (an sqlite
store); a `mlflow server`; the same server stopped for `--outage` seconds in the middle. Prints seconds of training from
the clock in metrics.csv, from the end of the first epoch on, and seconds of the whole command, with prediction and the
sending of all that was recorded: median (range), and the ratio to the first side within each round. The server runs
here too, and starting one takes seconds of a processor: --threads 1 leaves it one of two.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

EPOCH = 50  # batches
SIDES = ("neither", "defaults", "server", "server, away for a while")


class Server:
    """`mlflow server` on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts uvicorn by name
        environment = os.environ | {"PATH": binaries, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        sys.exit("mlflow server does not answer")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()
            self.process = None


def train(options: argparse.Namespace, folder: Path, *overrides: str) -> tuple[float, float]:
    """Seconds of training, and of the command: the first epoch, and the last with its validation, are not counted."""
    output = folder / "run"
    command = [sys.executable, "-m", "pipeline", "experiment=hippocampus_unet", f"data.root={options.root}"]
    command += ["folds.run=[0]", "schedule.budget=null", f"schedule.epochs={options.steps // EPOCH}"]
    command += [f"sampling.batches_per_epoch={EPOCH}", "trainer.validate_every=1000", "trainer.validate_cases=1"]
    command += [f"trainer.threads={options.threads}"] if options.threads else []
    command += ["evaluation.figures=false", f"output={output}", *overrides]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    whole = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout)
    with (output / "fold_0" / "metrics.csv").open(encoding="utf-8") as file:
        ends = [float(row["seconds"]) for row in csv.DictReader(file)]
    return ends[-2] - ends[0], whole


def side(name: str, options: argparse.Namespace) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if name == "neither":
            return train(options, folder, "tracking.enabled=false", "checkpoint.every=1000h", "checkpoint.share=0")
        if name == "defaults":
            return train(options, folder, f"tracking.uri=sqlite:///{folder / 'mlflow.db'}")
        server = Server(folder)
        timer = threading.Thread(target=interrupt, args=(server, folder / "run", options.outage), daemon=True)
        try:
            if name == "server, away for a while":
                timer.start()
            return train(options, folder, f"tracking.uri={server.uri}")
        finally:
            if timer.is_alive():
                timer.join()
            server.stop()


def interrupt(server: Server, run: Path, seconds: float) -> None:
    """Stop the server once training goes on, start it again after ``seconds``."""
    while not (run / "fold_0" / "metrics.csv").exists():
        time.sleep(0.1)
    server.stop()
    time.sleep(seconds)
    server.start()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--outage", type=float, default=20.0, help="s")
    parser.add_argument("--threads", type=int, help="of the training; default: all")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    options = parser.parse_args()
    options.root = options.root.resolve()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in options.sides}
    for _ in range(options.rounds):
        for name, values in found.items():
            values.append(side(name, options))
            print("{}: training {:.1f} s, whole command {:.1f} s".format(name, *values[-1]), file=sys.stderr)
    print("| | training, s | ratio | whole command, s | ratio |\n|---|---|---|---|---|")
    for name, values in found.items():
        cells = []
        for which in (0, 1):
            seconds = [value[which] for value in values]
            bases = [value[which] for value in found[options.sides[0]]]
            cells.append(spread(seconds, 1))
            cells.append(spread([one / other for one, other in zip(seconds, bases, strict=True)], 3))
        print(f"| {name} | {' | '.join(cells)} |")


def spread(values: list[float], digits: int) -> str:
    """Median (range)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
