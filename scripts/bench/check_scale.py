"""Time and memory of the check and of folds over many small cases: python scripts/bench/check_scale.py --cases 50000

Writes a Parquet table of tiny generated PNGs (classification, every fifth patient with two images) for several sizes,
then runs, each in a process of its own: reading the table, the check of all files, the check again (remembered), folds.
Time should grow in proportion to the cases, and memory stay below 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE = 32  # pixels


def write(folder: Path, cases: int) -> None:
    """Pictures in folders of a thousand, and the table."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    names = []
    for number in range(cases):
        place = folder / "images" / f"{number // 1000:04d}"
        if number % 1000 == 0:
            place.mkdir(parents=True, exist_ok=True)
        waves = sum(
            np.sin(2 * np.pi * (a * rows + b * columns + c)) * d
            for a, b, c, d in zip(*rng.uniform(-4, 4, (2, 4)), *rng.uniform(0, 1, (2, 4)), strict=True)
        )
        picture = 128 + 25 * waves + rng.normal(0, 6, (SIDE, SIDE))
        names.append(f"images/{number // 1000:04d}/{number:06d}.png")
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / names[-1], compress_level=1)
    patients = [f"patient_{number - (number % 5 == 1):06d}" for number in range(cases)]
    table = {
        "case_id": [f"case_{number:06d}" for number in range(cases)],
        "patient_id": patients,
        "image": names,
        "target": ["ill" if hash_of(patient) % 3 == 0 else "well" for patient in patients],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "cases.parquet")


def hash_of(name: str) -> int:
    """A number that depends on the name alone."""
    return int.from_bytes(name.encode()[-6:], "big") // 7


def measure(folder: Path, cache: Path, workers: int) -> dict[str, float]:
    """Seconds of each part and the greatest resident memory of this process in MiB."""
    from pipeline.data.folds import make_folds
    from pipeline.data.integrity import check_dataset
    from pipeline.data.readers import read_table

    times = [time.perf_counter()]
    dataset = read_table(root=folder, table="cases.parquet", task_kind="classification")
    times.append(time.perf_counter())
    result = check_dataset(dataset, workers=workers, cache=cache)
    times.append(time.perf_counter())
    (cache / "check.json").write_text(json.dumps(result.to_json()))
    times.append(time.perf_counter())
    make_folds(dataset, count=5, seed=0, together=result.duplicates)
    times.append(time.perf_counter())
    table, check, written, folds = np.diff(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"table": table, "check": check, "json": written, "folds": folds, "mib": peak, "faults": len(result.faults)}


def main() -> None:
    """Print one row per size and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--parts", type=int, nargs="+", default=[4, 2, 1], help="sizes: cases divided by each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child, given.cache, given.workers)))
        return
    seconds = f"{'table s':>8} {'check s':>8} {'json s':>7} {'folds s':>8} {'us/case':>8}"
    print(f"{'cases':>7} {'run':6} {seconds}    MiB faults")
    for part in given.parts:
        cases = given.cases // part
        with tempfile.TemporaryDirectory() as name:
            folder, cache = Path(name, "data"), Path(name, "cache")
            folder.mkdir()
            cache.mkdir()
            write(folder, cases)
            for run in ("first", "again"):
                command = [sys.executable, __file__, "--child", str(folder), "--cache", str(cache)]
                done = subprocess.run(
                    [*command, "--workers", str(given.workers)], capture_output=True, text=True, check=True
                )
                found = json.loads(done.stdout)
                each = 1e6 * (found["table"] + found["check"] + found["json"] + found["folds"]) / cases
                print(
                    f"{cases:7d} {run:6} {found['table']:8.2f} {found['check']:8.2f} {found['json']:7.2f} "
                    f"{found['folds']:8.2f} {each:8.0f} {found['mib']:6.0f} {found['faults']:6.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
