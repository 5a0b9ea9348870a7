"""From a case on disk to what the network sees: one path for training, validation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from pipeline.data.case import Case, Labels
from pipeline.data.image_io import Image, read_mask
from pipeline.data.labels import IGNORED, class_counts
from pipeline.data.modalities import read_modalities
from pipeline.data.voxels import Voxels
from pipeline.errors import UserError

SEARCHED = 16  # classes up to which looking for each is faster than sorting all voxels

Transform = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """A preprocessed case.

    ``image``: (C, *spatial) float32. ``label``: (*spatial) uint8 class indices, or None. ``affine``: (4, 4), voxel
    index of this grid to world, mm. ``native_affine`` and ``native_shape`` describe the grid of the file.
    ``centres``: per class that occurs, voxel indices (n, spatial_dims) of a sample of its voxels; ``counts``: how
    many it has; ignored voxels are in neither. ``absent``: channels of modalities that the case lacks; they are zero.
    """

    image: Voxels
    label: Voxels | None
    affine: NDArray[np.float64]
    native_shape: tuple[int, ...]
    native_affine: NDArray[np.float64]
    centres: Mapping[int, NDArray[np.int32]]
    counts: Mapping[int, int]
    absent: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the preprocessed grid."""
        return tuple(self.image.shape[1:])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size of the preprocessed grid, mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))


class Preprocessing:
    """Reads a case and applies the deterministic transforms to it.

    ``transforms`` take and give a dictionary with ``image`` and, when there is a mask, ``label``: channel-first
    ``MetaTensor`` with the affine of the file. ``modalities``: what the channels stand for, in order, the reference
    grid first. ``missing_voxels``: what is done about NaN (see fill_nonfinite). ``centres`` is the number of voxels
    remembered per class.
    """

    def __init__(
        self,
        transforms: Transform,
        labels: Labels | None,
        *,
        modalities: Sequence[str] = (),
        missing_voxels: str = "error",
        centres: int = 4096,
    ) -> None:
        self.transforms = transforms
        self.labels = labels
        self.modalities = tuple(modalities)
        self.missing_voxels = missing_voxels
        self.centres = centres

    def identity(self) -> dict[str, Any]:
        """What besides the transforms decides about the result; plain types."""
        labels = self.labels
        return {
            "labels": None if labels is None else [[value, name] for value, name in labels.values.items()],
            "ignore": None if labels is None else labels.ignore,
            "modalities": list(self.modalities) if len(self.modalities) > 1 else None,
            "missing_voxels": self.missing_voxels,
            "centres": self.centres,
        }

    def __call__(self, case: Case, *, with_label: bool = True) -> Prepared:
        """Prepare one case; a file that cannot be read or transformed raises :class:`UserError` with its name."""
        image, absent = read_modalities(case, self.modalities, missing_voxels=self.missing_voxels)
        data: dict[str, Any] = {"image": _tensor(image)}
        if with_label and case.label is not None and self.labels is not None:
            data["label"] = _tensor(read_label(case, self.labels))
        try:
            data = dict(self.transforms(data))
        except Exception as error:
            path = next(iter(case.images.values())).path
            cause: BaseException = error  # MONAI wraps what a transform raised in the name of the transform
            while cause.__cause__ is not None:
                cause = cause.__cause__
            said = str(cause).strip().splitlines()
            raise UserError(
                f"{path}: preprocessing failed: {said[-1] if said else repr(cause)}",
                "look at transforms.preprocessing and at the image's shape and spacing (python -m pipeline check)",
            ) from error
        array = np.ascontiguousarray(np.asarray(data["image"].numpy(), dtype=np.float32))
        array[list(absent)] = 0
        label = None
        if "label" in data:
            label = np.ascontiguousarray(np.asarray(data["label"][0].numpy()).round().astype(np.uint8))
        voxels = class_voxels(label, self.centres) if label is not None else {}
        counts = {} if label is None else {i: int(n) for i, n in enumerate(class_counts(label)) if n}
        return Prepared(
            image=array,
            label=label,
            affine=_four(np.asarray(data["image"].affine, dtype=np.float64)),
            native_shape=tuple(image.array.shape[1:]),
            native_affine=image.affine,
            centres={index: found for index, found in voxels.items() if index != IGNORED},
            counts={index: count for index, count in counts.items() if index != IGNORED},
            absent=absent,
        )


def read_label(case: Case, labels: Labels) -> Image:
    """The mask of a case as class indices, (1, *spatial) uint8, on its native grid."""
    assert case.label is not None
    mask = read_mask(case.label)
    try:
        indices = labels.to_index(mask.array)
    except ValueError as error:
        raise UserError(f"{case.label.path}: {error}", "declare every value in data.labels") from error
    return Image(indices, mask.affine, mask.spatial_dims)


def class_voxels(label: NDArray[np.uint8], most: int) -> dict[int, NDArray[np.int32]]:
    """Voxel indices (n, spatial_dims) of every class in ``label``, evenly thinned to at most ``most`` each."""
    flat = label.ravel()
    counts = class_counts(label)
    present = np.flatnonzero(counts)
    order, ends = None, np.cumsum(counts)
    if len(present) > SEARCHED:
        order = np.argsort(flat, kind="stable")
    voxels = {}
    for index in present:
        span = slice(ends[index] - counts[index], ends[index])
        inside = np.flatnonzero(flat == index) if order is None else order[span]
        if len(inside) > most:
            inside = inside[np.linspace(0, len(inside) - 1, most).astype(np.int64)]
        voxels[int(index)] = np.stack(np.unravel_index(inside, label.shape), axis=1).astype(np.int32)
    return voxels


def _tensor(image: Image) -> MetaTensor:
    return MetaTensor(
        torch.from_numpy(np.array(image.array, dtype=np.float32)), affine=torch.from_numpy(image.affine.copy())
    )


def _four(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (3, 3) affine of the plane as (4, 4)."""
    if affine.shape == (4, 4):
        return affine
    full = np.eye(4)
    full[:2, :2], full[:2, 3] = affine[:2, :2], affine[:2, 2]
    return full
