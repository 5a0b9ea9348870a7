"""Folds of a large data set: seconds and peak memory.

    python scripts/bench/folds.py [--cases 5000 50000]

Draws five stratified folds, three repeats of them, and five folds with four inner folds each, for patients of one to
three cases in five classes at eight sites; writes and reads folds.json. Prints seconds, the size of the file and the
growth of the process's peak memory. Time should grow with the cases and no faster.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.data.case import Case, Dataset, FileSource
from pipeline.data.folds import make_folds, read_folds, write_folds

SCHEMES = {
    "5 folds": {"count": 5},
    "5 folds, 3 repeats": {"count": 5, "scheme": "repeated", "repeats": 3},
    "5 folds, 4 inner": {"count": 5, "inner": 4},
    "sites": {"count": None, "group": "site"},
}


def cohort(count: int) -> Dataset:
    """Patients of one to three cases."""
    rng = np.random.default_rng(0)
    cases: list[Case] = []
    while len(cases) < count:
        number = len(cases)
        target, site = f"class {rng.integers(5)}", f"site {rng.integers(8)}"
        for more in range(min(int(rng.integers(1, 4)), count - number)):
            image = {"image": FileSource(Path(f"/data/{number + more:06d}.png"))}
            cases.append(Case(f"case_{number + more:06d}", f"patient_{number:06d}", image, target=target, site=site))
    classes = tuple(sorted({str(case.target) for case in cases}))
    return Dataset("bench", Path("/data"), "classification", tuple(cases), ("image",), None, classes, 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[5000, 50000])
    for count in parser.parse_args().cases:
        dataset = cohort(count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, asked in SCHEMES.items():
            begun = time.perf_counter()
            folds = make_folds(dataset, seed=0, **asked)  # type: ignore[arg-type]
            drawn = time.perf_counter() - begun
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "folds.json")
                begun = time.perf_counter()
                write_folds(path, folds, dataset, 0)
                assert read_folds(path, dataset) == folds
                file, size = time.perf_counter() - begun, path.stat().st_size / 1e6
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(
                f"{count:7} cases  {name:20} drawn {drawn:6.2f} s  file {file:5.2f} s, {size:5.1f} MB  "
                f"peak memory + {grown:.0f} MiB"
            )


if __name__ == "__main__":
    main()
