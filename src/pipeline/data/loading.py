"""Training and validation data as PyTorch data sets and loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Randomizable
from torch.utils.data import DataLoader, Dataset

from pipeline.data.case import Case
from pipeline.data.order import Draw, EpochBatches
from pipeline.data.patches import PatchSampling, cut
from pipeline.data.store import Store
from pipeline.randomness import draw_seed, generator, torch_seeded

Batch = dict[str, Any]
Augmentation = Sequence[Callable[[dict[str, Any]], dict[str, Any]]]


class TrainingPatches(Dataset[Batch]):
    """Random patches of cases, augmented.

    Gives ``image`` (C, *patch) float32, ``label`` (1, *patch) uint8 class indices or ``target`` (1,) int64, and
    ``seed``, from which the augmentation of the batch draws. All are functions of (seed, epoch, place) alone.
    ``targets`` are class indices per case in classification, None in segmentation.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        store: Store,
        sampling: PatchSampling,
        augmentation: Augmentation,
        *,
        targets: Sequence[int] | None,
        seed: int,
    ) -> None:
        self.cases = tuple(cases)
        self.store = store
        self.sampling = sampling
        self.augmentation = augmentation
        self.targets = targets
        self.seed = seed

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, draw: Draw) -> Batch:
        prepared = self.store[self.cases[draw.case]]
        start = self.sampling.start(prepared, generator(self.seed, "patch", draw.epoch, draw.place))
        sample: dict[str, Any] = {"image": torch.from_numpy(cut(prepared.image, start, self.sampling.size))}
        if self.targets is None:
            assert prepared.label is not None
            sample["label"] = torch.from_numpy(cut(prepared.label[None], start, self.sampling.size))
        seed = draw_seed(self.seed, "augment", draw.epoch, draw.place)
        with plain_tensors(), torch_seeded(seed):
            state = np.random.RandomState(np.random.PCG64(seed))
            for transform in self.augmentation:
                if isinstance(transform, Randomizable):
                    transform.set_random_state(state=state)
                sample = transform(sample)
        batch: Batch = {"image": torch.as_tensor(sample["image"], dtype=torch.float32), "seed": seed}
        if self.targets is None:
            label = torch.as_tensor(sample["label"])
            batch["label"] = label if label.dtype == torch.uint8 else label.round().to(torch.uint8)
        else:
            batch["target"] = torch.tensor([self.targets[draw.case]])
        return batch


class WholeCases(Dataset[Batch]):
    """Prepared cases as they are, for validation: ``image``, ``label`` or ``target``, and ``index`` of the case."""

    def __init__(self, cases: Sequence[Case], store: Store, *, targets: Sequence[int] | None) -> None:
        self.cases = tuple(cases)
        self.store = store
        self.targets = targets

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Batch:
        prepared = self.store[self.cases[index]]
        batch: Batch = {"image": torch.from_numpy(np.array(prepared.image)), "index": index}
        if self.targets is None:
            assert prepared.label is not None
            batch["label"] = torch.from_numpy(np.array(prepared.label)[None])
        else:
            batch["target"] = torch.tensor([self.targets[index]])
        return batch


def training_loader(patches: TrainingPatches, batches: EpochBatches, *, workers: int) -> DataLoader[Batch]:
    """Loader of training batches."""
    return DataLoader(
        patches,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
    )


def validation_loader(cases: WholeCases, *, batch_size: int = 1) -> DataLoader[Batch]:
    """Loader of whole cases, in order."""
    return DataLoader(cases, batch_size=batch_size, shuffle=False, num_workers=0)


@contextmanager
def plain_tensors() -> Iterator[None]:
    """MONAI transforms without metadata tracking: twice as fast, and nothing after the patch needs it."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
