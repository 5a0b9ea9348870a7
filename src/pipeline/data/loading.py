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

    Gives ``image`` (C, *patch) float32, and ``label`` (1, *patch) uint8 class indices or ``target`` (1,) int64. Patch
    and augmentation are functions of (seed, epoch, place) alone. ``targets`` are class indices per case in
    classification, None in segmentation.
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
        return {key: values[0] for key, values in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """A whole batch: every patch is copied once, from the store to its place."""
        batch = self._cut(draws)
        if not self.augmentation:
            return batch
        samples = [
            self._augmented(draw, {key: values[place] for key, values in batch.items()})
            for place, draw in enumerate(draws)
        ]
        return {key: torch.stack([sample[key] for sample in samples]) for key in batch}

    def _cut(self, draws: Sequence[Draw]) -> Batch:
        cases = [self.store[self.cases[draw.case]] for draw in draws]
        size, together = self.sampling.size, len(draws)
        batch: Batch = {"image": torch.empty((together, cases[0].image.shape[0], *size))}
        if self.targets is None:
            batch["label"] = torch.empty((together, 1, *size), dtype=torch.uint8)
        else:
            batch["target"] = torch.tensor([[self.targets[draw.case]] for draw in draws])
        images = batch["image"].numpy()
        labels = batch["label"].numpy() if self.targets is None else None
        for place, (draw, prepared) in enumerate(zip(draws, cases, strict=True)):
            start = self.sampling.start(prepared, generator(self.seed, "patch", draw.epoch, draw.place))
            cut(prepared.image, start, size, images[place])
            if labels is not None:
                assert prepared.label is not None
                cut(prepared.label, start, size, labels[place, 0])
        return batch

    def _augmented(self, draw: Draw, sample: dict[str, Any]) -> dict[str, Any]:
        seed = draw_seed(self.seed, "augment", draw.epoch, draw.place)
        target = sample.pop("target", None)
        with plain_tensors(), torch_seeded(seed):
            state = np.random.RandomState(np.random.PCG64(seed))
            for transform in self.augmentation:
                if isinstance(transform, Randomizable):
                    transform.set_random_state(state=state)
                sample = transform(sample)
        augmented: dict[str, Any] = {"image": torch.as_tensor(sample["image"], dtype=torch.float32)}
        if target is not None:
            augmented["target"] = target
        else:
            label = torch.as_tensor(sample["label"])
            augmented["label"] = label if label.dtype == torch.uint8 else label.round().to(torch.uint8)
        return augmented


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
        collate_fn=ready,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
    )


def ready(batch: Any) -> Any:
    """A batch that needs no collating."""
    return batch


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
