"""Augmentation of a batch of plain tensors, on whatever device it is, every sample by its own draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.randomness import generator

SEED = "seed"  # key of a batch: one seed per sample


class BatchTransform(ABC):
    """A random transform of the samples of a batch: draw parameters, then call a deterministic function with them."""

    @abstractmethod
    def augment(self, image: Tensor, label: Tensor | None, rng: np.random.Generator) -> None:
        """Change one sample in place, by what ``rng`` draws.

        ``image``: (C, *spatial) float32. ``label``: (K, *spatial) of any integer type, or None.
        """


class BatchAugmentation:
    """Applies ``transforms`` in order to the samples of a batch.

    The draws of a sample are functions of its seed and of the transform's place and class alone: neither the other
    samples of the batch, nor the number of processes, nor what another transform draws can change them. Raises
    ValueError where an entry is no :class:`BatchTransform`.
    """

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        for place, transform in enumerate(transforms):
            if not isinstance(transform, BatchTransform):
                raise ValueError(f"{place}: {type(transform).__name__} does not work on batches")
        self.transforms = tuple(transforms)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Augment ``image`` (B, C, *spatial) and, where there is one, ``label`` (B, K, *spatial), in place.

        ``seed`` (B,) int64 says what is drawn for each sample.
        """
        if not self.transforms:
            return batch
        image, label = batch["image"].float().contiguous(), batch.get("label")
        if label is not None:
            label = batch["label"] = label.contiguous()
        batch["image"] = image
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            for sample, seed in enumerate(batch[SEED].tolist()):
                self._augment(image[sample], None if label is None else label[sample], seed)
        return batch

    def _augment(self, image: Tensor, label: Tensor | None, seed: int) -> None:
        # sample by sample, not transform by transform: one sample fits into the processor's cache
        for place, transform in enumerate(self.transforms):
            transform.augment(image, label, generator(seed, type(transform).__name__, place))
