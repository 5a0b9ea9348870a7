"""Speed of the check against a bare parallel read:  python scripts/bench/check_speed.py [--data FOLDER]

Ours is what `check` and `train` do to every file: hash it, decode it to its end, describe its voxels, compare mask
and image, apply every rule. A bare read opens the same files with nibabel and decodes every voxel, and does nothing
else: in threads, and in processes, each with `--workers` of them; the faster of the two is what ours is compared with.
`bytes` only reads and unpacks the files. Every side runs in a process of its own, in turn, `--repeats` times; start and
imports are not counted, the files are in the operating system's cache. `--data`: a Decathlon folder; without it
generated thorax CTs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

SIDES = ("check", "nibabel, threads", "nibabel, processes", "bytes, threads")


def write_data(root: Path, cases: int) -> None:
    """Thorax CTs with voxels of about 2 mm."""
    from pipeline.data.phantom import PhantomSettings
    from pipeline.data.phantom.write import write_phantom_lung

    settings = PhantomSettings(patients=cases, second_scan_rate=0.0, spacing_mm=(2.0, 2.4), slice_mm=(2.4, 2.8))
    write_phantom_lung(root, settings, workers=2)


def files(root: Path) -> list[Path]:
    """Images and masks of a Decathlon folder, each image before its mask."""
    training = json.loads((root / "dataset.json").read_text())["training"]
    return [root / entry[part] for entry in training for part in ("image", "label")]


def decode(path: Path) -> int:
    """All voxels of a file, as stored; how many."""
    import nibabel as nib
    import numpy as np

    return int(np.asanyarray(nib.load(path).dataobj).size)


def unpack(path: Path) -> int:
    """All bytes of a file."""
    return len(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def measure(root: Path, side: str, workers: int) -> float:
    """Seconds of one side, in this process."""
    paths = files(root)
    if side == "check":
        from pipeline.data.integrity import check_dataset
        from pipeline.data.readers.decathlon import read_decathlon

        dataset = read_decathlon(root=root, task_kind="segmentation")
        begun = time.perf_counter()
        result = check_dataset(dataset, workers=workers)
        assert result.read == len(paths), f"{result.read} of {len(paths)} files read"
        return time.perf_counter() - begun
    work = unpack if side.startswith("bytes") else decode
    kind: type[ThreadPoolExecutor] | type[ProcessPoolExecutor] = ThreadPoolExecutor
    if side.endswith("processes"):
        kind = ProcessPoolExecutor
    pool: Executor
    with kind(workers) as pool:
        list(pool.map(decode, paths[:workers]))  # processes started, nibabel imported
        begun = time.perf_counter()
        list(pool.map(work, paths, chunksize=4 if kind is ProcessPoolExecutor else 1))
        return time.perf_counter() - begun


def main() -> None:
    """Print seconds of every side and the ratio to the bare read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a Decathlon folder; default: generated scans")
    parser.add_argument("--cases", type=int, default=24, help="of the generated scans")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(measure(given.data, given.side, given.workers))
        return
    with tempfile.TemporaryDirectory() as name:
        root = given.data or Path(name) / "data"
        if given.data is None:
            write_data(root, given.cases)
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(given.repeats):
            for side in SIDES:
                command = [sys.executable, __file__, "--data", str(root), "--workers", str(given.workers)]
                done = subprocess.run([*command, "--side", side], check=True, stdout=subprocess.PIPE, text=True)
                seconds[side].append(float(done.stdout.splitlines()[-1]))
        paths = files(root)
        size = sum(path.stat().st_size for path in paths) / 2**20
    print(f"{len(paths)} files, {size:.0f} MiB, {given.workers} workers, {given.repeats} repeats")
    print(f"{'':20}{'s, median (range)':>24}{'speed of the check by it':>28}")
    for side, found in seconds.items():
        ratios = [other / ours for other, ours in zip(found, seconds["check"], strict=True)]
        told = f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{side:20}{told:>24}{ratio:>28}")


if __name__ == "__main__":
    main()
