"""Training and validation data as PyTorch data sets and loaders."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Randomizable
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipeline.data.case import Case
from pipeline.data.order import Draw, EpochBatches, own_share
from pipeline.data.patches import PatchSampling, cut
from pipeline.data.preprocessing import Prepared
from pipeline.data.store import Store
from pipeline.data.worker import begin
from pipeline.randomness import draw_seed, generator, torch_seeded

Batch = dict[str, Any]
Augmentation = Sequence[Callable[[dict[str, Any]], dict[str, Any]]]
BatchAugmentation = Callable[[Batch], Batch]
Annotated = Sequence[Sequence[bool]] | None


class InHand:
    """Which cases each data-loading worker has in hand, in memory that the processes share."""

    def __init__(self, workers: int, most: int) -> None:
        self._rows = torch.full((workers, 1 + most), -1, dtype=torch.int64).share_memory_()

    def note(self, cases: Sequence[int]) -> None:
        """Called in a worker, with the indices of its cases."""
        info = get_worker_info()
        if info is not None:
            row = self._rows[info.id]
            if int(row[0]) != os.getpid():
                row[0] = os.getpid()
                atexit.register(row.fill_, -1)  # one that ends by itself has nothing in hand, and is not missed
            row[1:] = -1
            row[1 : 1 + len(cases)] = torch.tensor(cases)[: len(row) - 1]

    def gone(self) -> list[int]:
        """Called in the process that trains: ids of the workers that were ended with something in hand."""
        return [pid for pid in self.workers() if not _runs(pid)]

    def workers(self) -> list[int]:
        """Called in the process that trains: ids of the workers that have something in hand."""
        return [pid for row in self._rows if (pid := int(row[0])) > 0]

    def of(self, pids: Sequence[int], names: Sequence[str]) -> list[str]:
        """Called in the process that trains: the cases of the workers with these ids."""
        rows = [row[1:].tolist() for row in self._rows if int(row[0]) in pids]
        return list(dict.fromkeys(names[index] for row in rows for index in row if 0 <= index < len(names)))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


class TrainingPatches(Dataset[Batch]):
    """Random patches of cases, augmented.

    Gives ``image`` (C, *patch) float32, ``label`` (1, *patch) uint8 class indices or ``target`` (1,) int64, and
    ``seed``, from which the augmentation of the batch draws, and ``case``, the index of the case. All are functions of
    (seed, epoch, place) alone.
    ``targets`` are class indices per case in classification, None in segmentation. ``fallback`` () bool comes with a
    label: the patch was to be centred on a class, and the case has none. ``annotated``: per case, whether it annotates
    each output; given on as ``annotated`` (outputs,) bool. ``modality_dropout``: chance of each modality to be taken
    away from a patch, so that the network learns to do without (at least one stays). A channel that is absent is NaN.
    ``batch_augmentation``: of a whole batch, where it is not done on the device.
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
        annotated: Annotated = None,
        modality_dropout: float = 0.0,
        batch_augmentation: BatchAugmentation | None = None,
    ) -> None:
        self.annotated = annotated
        self.batch_augmentation = batch_augmentation
        self.modality_dropout = modality_dropout
        self.cases = tuple(cases)
        self.store = store
        self.sampling = sampling
        self.in_hand: InHand | None = None
        self.augmentation = augmentation
        self.targets = targets
        self.seed = seed

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, draw: Draw) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """A whole batch: every patch is copied once, from the store to its place."""
        if self.in_hand is not None:
            self.in_hand.note([draw.case for draw in draws])
        cases = [self.store[self.cases[draw.case]] for draw in draws]
        batch = self._cut(draws, cases)
        if self.augmentation:
            samples = [
                self._augmented(draw, {key: values[place] for key, values in batch.items()})
                for place, draw in enumerate(draws)
            ]
            batch |= {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
        seeds = [draw_seed(self.seed, "augment", draw.epoch, draw.place) for draw in draws]
        batch["seed"] = torch.tensor(seeds)
        batch["case"] = torch.tensor([draw.case for draw in draws])
        for image, draw, prepared in zip(batch["image"], draws, cases, strict=True):
            absent = prepared.absent
            if self.modality_dropout > 0:
                rng = generator(self.seed, "modality", draw.epoch, draw.place)
                absent = drop_channels(len(image), absent, self.modality_dropout, rng)
            image[list(absent)] = torch.nan
        if self.annotated is not None:
            batch["annotated"] = torch.tensor([self.annotated[draw.case] for draw in draws])
        if self.targets is not None:
            batch["target"] = torch.tensor([[self.targets[draw.case]] for draw in draws])
        if self.batch_augmentation is None:
            return batch
        with one_thread():
            return self.batch_augmentation(batch)

    def _cut(self, draws: Sequence[Draw], cases: Sequence[Prepared]) -> Batch:
        size, together = self.sampling.size, len(draws)
        batch: Batch = {"image": torch.empty((together, cases[0].image.shape[0], *size))}
        images, labels = batch["image"].numpy(), None
        if self.targets is None:
            batch["label"] = torch.empty((together, 1, *size), dtype=torch.uint8)
            labels = batch["label"].numpy()
        fallbacks = []
        for place, (draw, prepared) in enumerate(zip(draws, cases, strict=True)):
            rng = generator(self.seed, "patch", draw.epoch, draw.place)
            start, fallback = self.sampling.place(prepared, rng, draw.place)
            fallbacks.append(fallback)
            cut(prepared.image, start, size, images[place])
            if labels is not None:
                assert prepared.label is not None
                cut(prepared.label, start, size, labels[place, 0])
        if labels is not None:
            batch["fallback"] = torch.tensor(fallbacks)
        return batch

    def _augmented(self, draw: Draw, sample: dict[str, Any]) -> dict[str, Any]:
        seed = draw_seed(self.seed, "augment", draw.epoch, draw.place)
        with plain_tensors(), torch_seeded(seed):
            state = np.random.RandomState(np.random.PCG64(seed))
            for transform in self.augmentation:
                if isinstance(transform, Randomizable):
                    transform.set_random_state(state=state)
                sample = transform(sample)
        augmented: dict[str, Any] = {"image": torch.as_tensor(sample["image"], dtype=torch.float32)}
        if "label" in sample:
            label = torch.as_tensor(sample["label"])
            augmented["label"] = label if label.dtype == torch.uint8 else label.round().to(torch.uint8)
        return augmented


class WholeCases(Dataset[Batch]):
    """Prepared cases as they are, for validation: ``image``, ``label`` or ``target``, and ``index`` of the case.

    ``annotated`` as in TrainingPatches. Channels that are absent are NaN.
    """

    def __init__(
        self, cases: Sequence[Case], store: Store, *, targets: Sequence[int] | None, annotated: Annotated = None
    ) -> None:
        self.cases = tuple(cases)
        self.store = store
        self.targets = targets
        self.annotated = annotated

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Batch:
        prepared = self.store[self.cases[index]]
        batch: Batch = {"image": torch.from_numpy(network_image(prepared)), "index": index}
        if self.annotated is not None:
            batch["annotated"] = torch.tensor(self.annotated[index])
        if self.targets is None:
            assert prepared.label is not None
            batch["label"] = torch.from_numpy(np.array(prepared.label)[None])
        else:
            batch["target"] = torch.tensor([self.targets[index]])
        return batch


def network_image(prepared: Prepared) -> NDArray[np.float32]:
    """A copy of the prepared image, (C, *spatial), in which channels of absent modalities are NaN."""
    image = np.array(prepared.image)
    image[list(prepared.absent)] = np.nan
    return image


def drop_channels(
    channels: int, absent: Sequence[int], probability: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """The absent channels and those that fall out, each with ``probability``; of those present one always stays."""
    present = [channel for channel in range(channels) if channel not in absent]
    drawn = rng.random(channels) < probability
    staying = [channel for channel in present if not drawn[channel]]
    if not staying:
        staying = [present[int(rng.integers(len(present)))]]
    return tuple(channel for channel in range(channels) if channel not in staying)


def training_loader(patches: TrainingPatches, batches: EpochBatches, *, workers: int) -> DataLoader[Batch]:
    """Loader of training batches."""
    if workers:
        patches.in_hand = InHand(workers, batches.batch_size)
    return DataLoader(
        patches,
        batch_sampler=batches,
        collate_fn=ready,
        num_workers=workers,
        persistent_workers=workers > 0,  # a new one imports for seconds; a draw names its epoch
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=begin,
    )


def ready(batch: Any) -> Any:
    """A batch that needs no collating."""
    return batch


def validation_loader(
    cases: WholeCases, *, batch_size: int = 1, process: int = 0, processes: int = 1
) -> DataLoader[Batch]:
    """Loader of whole cases, in order: those that this process validates."""
    share = own_share(len(cases), process, processes)
    return DataLoader(cases, batch_size=batch_size, sampler=share, num_workers=0)


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a data-loading worker, so that sums over many voxels are the same bits with and without workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def plain_tensors() -> Iterator[None]:
    """MONAI transforms without metadata tracking: twice as fast, and nothing after the patch needs it."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
