"""Random foreground patches of preprocessed thorax CTs: ours against MONAI's CacheDataset and PersistentDataset.

    python scripts/bench/patch_loading.py [--cases 24] [--epochs 20] [--repeats 3] [--batch 2] [--threads 2]

Generated thorax CTs (data=phantom_lung, about 192x192x128 voxels after preprocessing) are written once. Every side runs
in a process of its own, in turn, `--repeats` times, from the same files to batches of 96x96x64 patches, half of them on
the foreground, without augmentation. MONAI gets the dict transforms of its tutorials: LoadImaged, EnsureChannelFirstd,
Orientationd, Spacingd, ScaleIntensityRanged, EnsureTyped, and RandCropByPosNegLabeld. `cache-indices` also caches the
foreground indices (FgBgToIndicesd), `cache-plain` crops without metadata tracking on top of that. Ours is what training
uses: the same transforms (with this project's Spacingd, which gives the same values), the store and the loader of
TrainingPatches.

Two tables: the epochs after the first (CacheDataset has filled its memory by then), and the whole run, first epoch and
preprocessing included. Memory is the greatest resident set of the process. `--only ours` measures one side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SPACING = (1.8, 1.5, 2.4)  # mm: 192x192x128 voxels of the generated scans
WINDOW = (-1000.0, 400.0)  # HU
SIDES = ("ours", "ours-blosc2", "cache", "cache-indices", "cache-plain", "persistent")
TITLES = {
    "ours": "ours, npy",
    "ours-blosc2": "ours, blosc2",
    "cache": "CacheDataset",
    "cache-indices": "  + indices cached",
    "cache-plain": "  + no metadata",
    "persistent": "PersistentDataset",
}


def files(root: Path) -> list[dict[str, str]]:
    """Image and label of every case."""
    images = sorted((root / "imagesTr").iterdir())
    return [{"image": str(path), "label": str(root / "labelsTr" / path.name)} for path in images]


def write_data(root: Path, cases: int) -> None:
    """Thorax CTs with voxels of about 2 mm."""
    from pipeline.data.phantom import PhantomSettings
    from pipeline.data.phantom.write import write_phantom_lung

    settings = PhantomSettings(patients=cases, second_scan_rate=0.0, spacing_mm=(2.0, 2.4), slice_mm=(2.4, 2.8))
    write_phantom_lung(root, settings, workers=2)


def preprocessing(spacing: Any) -> list[Any]:
    """The deterministic transforms of both sides; ``spacing`` is MONAI's Spacingd or ours, as training has it."""
    from monai.transforms import Orientationd, ScaleIntensityRanged

    keys = ["image", "label"]
    return [
        Orientationd(keys=keys, axcodes="RAS", labels=None),
        spacing(keys=keys, pixdim=SPACING, mode=["bilinear", "nearest"]),
        ScaleIntensityRanged(keys=["image"], a_min=WINDOW[0], a_max=WINDOW[1], b_min=0.0, b_max=1.0, clip=True),
    ]


def ours(options: argparse.Namespace, cache: Path) -> Callable[[int], Iterable[Any]]:
    """The product's store, patches and loader."""
    from monai.transforms import Compose

    from pipeline.data.case import Case, FileSource, Labels
    from pipeline.data.loading import TrainingPatches, training_loader
    from pipeline.data.order import CaseOrder, EpochBatches
    from pipeline.data.patches import PatchSampling
    from pipeline.data.preprocessing import Preprocessing
    from pipeline.data.store import Store, StoreSettings
    from pipeline.transforms import Spacingd

    cases, digests = [], {}
    for entry in files(options.data):
        image, label = Path(entry["image"]), Path(entry["label"])
        cases.append(Case(image.name, image.name, {"ct": FileSource(image)}, FileSource(label)))
        digests[image.name] = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (image, label)}
    labels = Labels({0: "background", 1: "lung", 2: "tumour"})
    settings = StoreSettings(format="blosc2" if options.side == "ours-blosc2" else "npy")
    store = Store(cache, Preprocessing(Compose(preprocessing(Spacingd)), labels), "bench", digests, settings)
    store.prepare(cases, workers=options.threads)
    sampling = PatchSampling("foreground", tuple(options.patch), 0.5)
    patches = TrainingPatches(cases, store, sampling, [], targets=None, seed=0)
    order = CaseOrder((tuple(range(len(cases))),), 0)
    batches = EpochBatches(order, batches=max(1, len(cases) // options.batch), batch_size=options.batch)
    loader = training_loader(patches, batches, workers=options.workers)

    def epoch(number: int) -> Iterable[Any]:
        batches.set_epoch(number)
        return loader

    return epoch


def theirs(options: argparse.Namespace, cache: Path) -> Callable[[int], Iterable[Any]]:
    """MONAI's dict transforms behind one of its caching data sets."""
    from monai.data import CacheDataset, DataLoader, PersistentDataset, set_track_meta
    from monai.transforms import (
        EnsureChannelFirstd,
        EnsureTyped,
        FgBgToIndicesd,
        LoadImaged,
        RandCropByPosNegLabeld,
        Spacingd,
    )

    keys = ["image", "label"]
    indexed = options.side in ("cache-indices", "cache-plain")
    chain = [LoadImaged(keys=keys), EnsureChannelFirstd(keys=keys), *preprocessing(Spacingd), EnsureTyped(keys=keys)]
    if indexed:
        chain.append(FgBgToIndicesd(keys="label", fg_postfix="_fg", bg_postfix="_bg"))
    if options.side == "cache-plain":
        chain.append(EnsureTyped(keys=keys, track_meta=False))
    crop = RandCropByPosNegLabeld(
        keys=keys,
        label_key="label",
        spatial_size=options.patch,
        pos=1,
        neg=1,
        num_samples=1,
        fg_indices_key="label_fg" if indexed else None,
        bg_indices_key="label_bg" if indexed else None,
        allow_smaller=True,
    )
    data: Any
    if options.side == "persistent":
        data = PersistentDataset(files(options.data), [*chain, crop], cache_dir=cache)
    else:
        data = CacheDataset(files(options.data), [*chain, crop], num_workers=options.threads, progress=False)
        if options.side == "cache-plain":
            set_track_meta(False)
    loader = DataLoader(data, batch_size=options.batch, shuffle=True, num_workers=options.workers)
    return lambda number: loader


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One side, in this process: seconds of preparing and of every epoch, samples an epoch, peak memory."""
    import torch

    torch.set_num_threads(options.threads)
    import monai.transforms  # noqa: F401 - imports are nobody's cost

    with tempfile.TemporaryDirectory(dir=options.data.parent) as name:
        begun = time.perf_counter()
        epoch = (ours if options.side.startswith("ours") else theirs)(options, Path(name) / "cache")
        prepared = time.perf_counter() - begun
        seconds, samples = [], 0
        for number in range(options.epochs):
            begun, samples = time.perf_counter(), 0
            for batch in epoch(number):
                assert tuple(batch["image"].shape[2:]) == tuple(options.patch)
                samples += len(batch["image"])
            seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    return {"prepared": prepared, "epochs": seconds, "samples": samples, "peak_gib": peak}


def in_process(options: argparse.Namespace, side: str) -> dict[str, Any]:
    """``measure`` in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--data", str(options.data)]
    for name in ("epochs", "batch", "threads", "workers"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--patch", *map(str, options.patch)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print samples a second, memory and ratios of all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder for the generated scans; default: a temporary one")
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="loader processes, of all sides")
    parser.add_argument("--patch", type=int, nargs=3, default=(96, 96, 64))
    parser.add_argument("--only", choices=SIDES, nargs="+", default=SIDES)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as name:
        options.data = options.data or Path(name) / "data"
        write_data(options.data, options.cases)
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in options.only}
        for _ in range(options.repeats):
            for side in options.only:
                runs[side].append(in_process(options, side))
    print_table(options, runs)


def print_table(options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Medians over the repeats (least to greatest), and how many times faster ours is."""

    def later(run: dict[str, Any]) -> float:
        return float(run["samples"] / statistics.median(run["epochs"][1:] or run["epochs"]))

    def whole(run: dict[str, Any]) -> float:
        return float(run["samples"] * len(run["epochs"]) / (run["prepared"] + sum(run["epochs"])))

    def first(run: dict[str, Any]) -> float:
        return float(run["samples"] / (run["prepared"] + run["epochs"][0]))

    patch = "x".join(map(str, options.patch))
    print(f"{options.cases} cases, patches {patch}, batch {options.batch}, {options.threads} threads,", end=" ")
    print(f"{options.workers} workers, {options.repeats} repeats: samples a second, median (least to greatest)")
    columns = (("later epochs", later), ("first epoch", first), (f"all {options.epochs} epochs", whole))
    print(f"{'':22}" + "".join(f"{title:>26}{'ours is':>9}" for title, _ in columns) + f"{'peak GiB':>10}")
    for side, found in runs.items():
        line = f"{TITLES[side]:22}"
        for _, speed in columns:
            speeds = [speed(run) for run in found]
            line += f"{f'{statistics.median(speeds):.1f} ({min(speeds):.1f}-{max(speeds):.1f})':>26}"
            base = [speed(run) for run in runs.get("ours", [])]
            line += f"{f'{statistics.median(base) / statistics.median(speeds):.1f}x' if base else '':>9}"
        print(line + f"{max(run['peak_gib'] for run in found):>10.2f}")


if __name__ == "__main__":
    main()
