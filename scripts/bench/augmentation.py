"""Random patches with nnU-Net's augmentation: ours against MONAI's dictionary transforms and batchgeneratorsv2.

    python scripts/bench/augmentation.py [--patch 96 96 64] [--repeats 7] [--samples 48] [--profile]

All sides cut foreground patches from the same preprocessed volumes and apply the same transforms with the same
probabilities and ranges (conf/augmentation/nnunet.yaml), in turn, in one process with --threads threads: ours from
memory-mapped arrays, as training does; MONAI (MetaTensor, its default) from volumes cached in memory, not copied, with
cached foreground indices; batchgeneratorsv2 from our patches. With --workers the two others run once more in so many
worker processes of one thread each, as their users do. Prints milliseconds a sample (median, lowest to highest) and
the ratio to ours. --profile prints what each of our transforms costs a sample that drew it.

batchgeneratorsv2 is installed without its dependencies in a folder of its own (--rivals), searched last.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai import transforms as mt
from monai.data import CacheDataset, MetaTensor
from monai.data import DataLoader as MonaiLoader
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset

from pipeline.config.build import fill_derived
from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.data.loading import TrainingPatches, ready
from pipeline.data.order import Draw
from pipeline.data.patches import PatchSampling, cut
from pipeline.data.preprocessing import Prepared, class_voxels
from pipeline.training.augmentation import batch_augmentation
from pipeline.transforms import BatchAugmentation, RandomSpatial

BGV2 = "batchgeneratorsv2==0.3.6"
VOLUME = (192, 192, 160)
FOREGROUND = 0.34  # of the patches, on all sides
Produce = Callable[[], int]  # an epoch of samples: how many


def volumes(folder: Path, count: int) -> list[Prepared]:
    """Preprocessed volumes of smooth noise with a structure of two classes, memory-mapped."""
    prepared = []
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = ndimage.gaussian_filter(rng.normal(size=[n // 4 for n in VOLUME]), 3)
        field = ndimage.zoom(coarse / coarse.std(), 4, order=1)
        label = np.digitize(field, [1.0, 1.8]).astype(np.uint8)
        np.save(folder / f"image_{index}.npy", (field + 0.3 * rng.normal(size=VOLUME)).astype(np.float32)[None])
        np.save(folder / f"label_{index}.npy", label)
        prepared.append(
            Prepared(
                image=np.load(folder / f"image_{index}.npy", mmap_mode="r"),
                label=np.load(folder / f"label_{index}.npy", mmap_mode="r"),
                affine=np.eye(4),
                native_shape=VOLUME,
                native_affine=np.eye(4),
                centres=class_voxels(label, 4096),
                counts={},
            )
        )
    return prepared


def nnunet_augmentation() -> BatchAugmentation:
    """conf/augmentation/nnunet.yaml for cubic voxels."""
    tree = validate(compose("train", ["augmentation=nnunet"]), TrainConfig).tree
    sides = {"axes": [0], "paired": False, "swaps": []}
    derived = {"spatial_dims": 3, "spacing": [1.0] * 3, "sides": sides}
    return batch_augmentation(fill_derived(tree, derived)["transforms"], ())


def ours(prepared: Sequence[Prepared], patch: tuple[int, ...], samples: int, batch: int) -> Produce:
    """Patches of the training data set, augmented batch by batch."""
    sampling = PatchSampling("foreground", patch, FOREGROUND)
    store: Any = dict(enumerate(prepared))
    cases: Any = range(len(prepared))
    patches = TrainingPatches(cases, store, sampling, [], targets=None, seed=0)
    augment, epoch = nnunet_augmentation(), iter(range(1 << 30))

    def produce() -> int:
        number = next(epoch)
        draws = [Draw(number, place, place % len(prepared)) for place in range(samples)]
        batches = [draws[first : first + batch] for first in range(0, samples, batch)]
        return sum(len(augment(b)["image"]) for b in DataLoader(patches, batch_sampler=batches, collate_fn=ready))

    return produce


def monai(prepared: Sequence[Prepared], patch: tuple[int, ...], samples: int, batch: int, workers: int) -> Produce:
    """The same chain of MONAI's dictionary transforms; it draws per sample what nnU-Net draws per channel."""
    both, image, modes = ["image", "label"], ["image"], ("bilinear", "nearest")
    chain = mt.Compose(
        [
            mt.FgBgToIndicesd("label"),
            mt.RandCropByPosNegLabeld(
                both,
                "label",
                patch,
                pos=FOREGROUND,
                neg=1 - FOREGROUND,
                fg_indices_key="label_fg_indices",
                bg_indices_key="label_bg_indices",
            ),
            mt.SelectItemsd(both),
            mt.RandRotated(both, pi / 6, pi / 6, pi / 6, prob=0.2, mode=modes, padding_mode="border"),
            mt.RandZoomd(both, 0.2, 0.7, 1.4, mode=("trilinear", "nearest"), padding_mode="edge"),
            mt.RandGaussianNoised(image, 0.1, std=0.1),
            mt.RandGaussianSmoothd(image, (0.5, 1), (0.5, 1), (0.5, 1), prob=0.2 * 0.5),
            mt.RandScaleIntensityd(image, 0.25, 0.15),
            mt.RandScaleIntensityFixedMeand(image, 0.15, 0.25, preserve_range=True),
            mt.RandSimulateLowResolutiond(image, 0.25 * 0.5, zoom_range=(0.5, 1.0)),
            mt.RandAdjustContrastd(image, 0.1, (0.7, 1.5), invert_image=True, retain_stats=True),
            mt.RandAdjustContrastd(image, 0.3, (0.7, 1.5), retain_stats=True),
            *[mt.RandFlipd(both, 0.5, axis) for axis in range(3)],
        ]
    ).set_random_state(seed=0)
    data = [
        {
            "image": MetaTensor(torch.from_numpy(np.array(p.image))),
            "label": MetaTensor(torch.from_numpy(np.array(p.label)[None])),
        }
        for p in prepared
    ]
    cached = CacheDataset(data, chain, progress=False, copy_cache=False)
    order = [index % len(prepared) for index in range(samples)]
    loader = MonaiLoader(cached, batch_size=batch, sampler=order, num_workers=workers, persistent_workers=workers > 0)
    return lambda: sum(len(b["image"]) for b in loader)


class RivalPatches(Dataset[dict[str, torch.Tensor]]):
    """Patches cut as ours are, augmented by batchgeneratorsv2 one by one."""

    def __init__(self, prepared: Sequence[Prepared], patch: tuple[int, ...], samples: int) -> None:
        self.prepared, self.samples = prepared, samples
        self.sampling = PatchSampling("foreground", patch, FOREGROUND)
        self.chain = bgv2_chain(patch)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        prepared = self.prepared[index % len(self.prepared)]
        assert prepared.label is not None
        start = self.sampling.start(prepared, np.random.default_rng())
        image = torch.from_numpy(cut(prepared.image, start, self.sampling.size))
        label = torch.from_numpy(cut(prepared.label[None], start, self.sampling.size).astype(np.int16))
        augmented: dict[str, torch.Tensor] = self.chain(image=image, segmentation=label)
        return augmented


def bgv2_chain(patch: tuple[int, ...]) -> Any:
    """The default training transforms of nnU-Net v2."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    spatial = SpatialTransform(
        patch,
        0,
        False,
        p_rotation=0.2,
        rotation=(-pi / 6, pi / 6),
        p_scaling=0.2,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
    )
    quarter = BGContrast((0.75, 1.25))
    gamma = BGContrast((0.7, 1.5))
    random = [
        (GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
        (GaussianBlurTransform((0.5, 1.0), False, False, 0.5, benchmark=True), 0.2),
        (MultiplicativeBrightnessTransform(quarter, False, 1), 0.15),
        (ContrastTransform(quarter, True, False, 1), 0.15),
        (SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 0.5), 0.25),
        (GammaTransform(gamma, 1, False, 1, 1), 0.1),
        (GammaTransform(gamma, 0, False, 1, 1), 0.3),
    ]
    return ComposeTransforms(
        [spatial, *[RandomTransform(transform, p) for transform, p in random], MirrorTransform((0, 1, 2))]
    )


def bgv2(prepared: Sequence[Prepared], patch: tuple[int, ...], samples: int, batch: int, workers: int) -> Produce:
    """batchgeneratorsv2 in a PyTorch loader."""
    loader = DataLoader(
        RivalPatches(prepared, patch, samples), batch, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: sum(len(b["image"]) for b in loader)


def install(folder: Path) -> bool:
    """Make batchgeneratorsv2 importable; False where it cannot be had."""
    if not (folder / "batchgeneratorsv2").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), BGV2]
        if subprocess.run(command, check=False).returncode:
            return False
    sys.path.append(str(folder))
    return True


def milliseconds(produce: Produce, clock: Callable[[], float]) -> float:
    """Time of a sample."""
    begun = clock()
    count = produce()
    return (clock() - begun) * 1e3 / count


def compare(sides: dict[str, Produce], repeats: int, clock: Callable[[], float]) -> None:
    """All sides in turn, after a warm-up of each; prints medians and their ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, produce in sides.items():
            value = milliseconds(produce, clock)
            if repeat:
                times[name].append(value)
    first = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:<34}{median:8.2f} ms a sample ({min(values):.2f} to {max(values):.2f}){median / first:8.2f}")


def profile(patch: tuple[int, ...], repeats: int, clock: Callable[[], float]) -> None:
    """Milliseconds that each transform takes when it is drawn; each half of the spatial one by itself."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, *patch)).astype(np.float32))
    label = torch.from_numpy(rng.integers(0, 3, size=(1, *patch)).astype(np.uint8))
    for transform in nnunet_augmentation().transforms:
        variants = [(type(transform).__name__, {"prob": 1.0, "channel_prob": 1.0})]
        if isinstance(transform, RandomSpatial):
            variants = [
                ("RandomSpatial, rotation", {"rotation_prob": 1.0, "scale_prob": 0.0}),
                ("RandomSpatial, zoom", {"rotation_prob": 0.0, "scale_prob": 1.0}),
            ]
        for name, always in variants:
            for key, value in always.items():
                setattr(transform, key, value)
            values = []
            for seed in range(repeats):
                begun = clock()
                transform.augment(image, label, np.random.default_rng(seed))
                values.append((clock() - begun) * 1e3)
            print(
                f"  {name:<34}{statistics.median(values):8.2f} ms when drawn ({min(values):.2f} to {max(values):.2f})"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, action="append", help="voxels; may be given several times")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--samples", type=int, default=48, help="of each side in each repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of the other sides' second measurement; 0: none")
    parser.add_argument("--volumes", type=int, default=6)
    parser.add_argument("--rivals", type=Path, default=Path.home() / ".cache" / "medical-pipeline" / "bench")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="CPU time of one thread: for a machine that others use too")
    given = parser.parse_args()
    clock = time.process_time if given.cpu else time.perf_counter
    if given.cpu:
        given.threads, given.workers = 1, 0
    torch.set_num_threads(given.threads)
    others = {"MONAI dictionary transforms": monai}
    if install(given.rivals):
        others["batchgeneratorsv2"] = bgv2
    else:
        print(f"{BGV2} could not be installed in {given.rivals}: left out")
    with tempfile.TemporaryDirectory() as name:
        prepared = volumes(Path(name), given.volumes)
        for patch in map(tuple, given.patch or [(96, 96, 64), (96, 96, 96)]):
            size = (prepared, patch, given.samples, given.batch)
            print(
                f"{'x'.join(map(str, patch))}, batch {given.batch}, {given.threads} threads; last column: ratio to ours"
            )
            if given.profile:
                profile(patch, given.repeats, clock)
            sides: dict[str, Produce] = {"ours": ours(*size)}
            for title, side in others.items():
                sides[title] = side(*size, 0)
                if given.workers:
                    sides[f"{title}, {given.workers} workers"] = side(*size, given.workers)
            compare(sides, given.repeats, clock)


if __name__ == "__main__":
    main()
