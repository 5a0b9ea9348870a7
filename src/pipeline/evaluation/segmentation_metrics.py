"""How well a predicted mask meets the true one: Dice, HD95, surface Dice and volume error, per class of one case."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.surface import hausdorff_distance, surface_dice, surface_distances

EMPTY_MASK_RULE = (
    "Empty masks: where truth and prediction are both empty, the case is a true negative of that class and is left "
    "out of Dice, HD95 and surface Dice. Where only one of them is empty, Dice and surface Dice are 0 and HD95 is the "
    "diagonal of the image."
)

Mask = NDArray[np.integer[Any]]


def segmentation_case_metrics(
    prediction: Mask,
    truth: Mask,
    *,
    class_names: Sequence[str],
    spacing: Sequence[float],
    tolerance_mm: float,
    parts: Mapping[str, Collection[int]] | None = None,
    ignored: int | None = None,
) -> list[dict[str, Any]]:
    """Score one case on its own voxel grid: one row per foreground class, or per name in ``parts``.

    prediction, truth: (H, W) or (H, W, D) class indices, 0 is background. class_names: by class index, the name of
    the background first. spacing: mm per voxel along each axis; for images that have none it is 1, so that mm means
    pixels. tolerance_mm: of the surface Dice. parts: name -> the class indices it consists of, for regions that overlap
    and cases that annotate some classes only; None: every foreground class. ignored: index in the truth of voxels that
    nobody annotated; they count as background in both.

    Each row holds ``class``, ``dice``, ``hd95_mm``, ``surface_dice``, ``volume_error_ml`` (prediction minus truth,
    signed), ``volume_error_percent`` (of the true volume; NaN where that is 0), ``truth_ml``, ``prediction_ml`` and
    ``empty`` (neither, truth, prediction, both). In 2D a volume is that of a slice 1 mm thick. Empty masks follow
    EMPTY_MASK_RULE. Values equal MONAI's DiceMetric, compute_hausdorff_distance and compute_surface_dice where both
    masks hold the class.

    Raises ValueError if the shapes differ, the spacing does not fit them, or an index has no name.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth has shape {truth.shape}")
    if len(spacing) != truth.ndim:
        raise ValueError(f"{len(spacing)} spacings for an image of {truth.ndim} dimensions")
    if ignored is not None:
        known = truth != ignored
        prediction, truth = prediction * known, truth * known
    for what, mask in (("prediction", prediction), ("truth", truth)):
        low, high = int(mask.min()), int(mask.max())
        if low < 0 or high >= len(class_names):
            wrong = low if low < 0 else high
            raise ValueError(f"{what} holds class index {wrong}; there are {len(class_names)} classes")
    diagonal = float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    voxel_ml = float(np.prod(spacing)) / 1000.0
    foreground = _box(prediction | truth)
    prediction, truth = prediction[foreground], truth[foreground]
    rows = []
    scored = {name: (index,) for index, name in enumerate(class_names) if index > 0} if parts is None else parts
    for name, indices in scored.items():
        predicted, true = _is_one_of(prediction, indices), _is_one_of(truth, indices)
        n_prediction, n_truth = int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
        if n_prediction and n_truth:
            box = _box((predicted | true).view(np.uint8))
            distances = surface_distances(predicted[box], true[box], spacing)
            dice = 2.0 * int(np.count_nonzero(predicted & true)) / (n_prediction + n_truth)
            hd95, surface = hausdorff_distance(distances), surface_dice(distances, tolerance_mm)
            empty = "neither"
        elif n_prediction or n_truth:
            dice, hd95, surface = 0.0, diagonal, 0.0
            empty = "truth" if n_prediction else "prediction"
        else:
            dice = hd95 = surface = float("nan")
            empty = "both"
        rows.append(
            {
                "class": name,
                "dice": dice,
                "hd95_mm": hd95,
                "surface_dice": surface,
                "volume_error_ml": (n_prediction - n_truth) * voxel_ml,
                "volume_error_percent": 100.0 * (n_prediction - n_truth) / n_truth if n_truth else float("nan"),
                "truth_ml": n_truth * voxel_ml,
                "prediction_ml": n_prediction * voxel_ml,
                "empty": empty,
            }
        )
    return rows


def _is_one_of(mask: Mask, indices: Collection[int]) -> NDArray[np.bool_]:
    first, *others = indices
    found: NDArray[np.bool_] = mask == first
    for index in others:
        found |= mask == index
    return found


def _box(mask: Mask) -> tuple[slice, ...]:
    """Bounding box of what is not 0; empty slices where nothing is."""
    sides = []
    for axis in range(mask.ndim):
        profile = mask
        for other in reversed(range(mask.ndim)):
            if other != axis:
                # Along one axis at a time this runs at the speed of memory; ndarray.any and find_objects do not.
                profile = np.bitwise_or.reduce(profile, axis=other)
        filled = np.flatnonzero(profile)
        sides.append(slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, 0))
    return tuple(sides)
