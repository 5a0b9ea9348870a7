"""The random transforms of the training data: those of one sample, and those of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config.build import build
from pipeline.errors import UserError
from pipeline.transforms.batch import BatchAugmentation, BatchTransform


def sample_augmentation(
    transforms: Mapping[str, Any], trusted: Sequence[str]
) -> list[Callable[[dict[str, Any]], dict[str, Any]]]:
    """``transforms.augmentation`` of a resolved configuration, built. Raises UserError."""
    built = build(transforms["augmentation"], "transforms.augmentation", trusted)
    for place, transform in enumerate(built):
        if isinstance(transform, BatchTransform):
            raise UserError(
                f"transforms.augmentation.{place}: {type(transform).__name__} works on batches",
                "move it to transforms.batch_augmentation",
            )
    return list(built)


def batch_augmentation(transforms: Mapping[str, Any], trusted: Sequence[str]) -> BatchAugmentation:
    """``transforms.batch_augmentation`` of a resolved configuration, built. Raises UserError."""
    built = build(transforms["batch_augmentation"], "transforms.batch_augmentation", trusted)
    try:
        return BatchAugmentation(built)
    except ValueError as error:
        raise UserError(
            f"transforms.batch_augmentation.{error}",
            "transforms of one sample, such as MONAI's, stand in transforms.augmentation",
        ) from error
