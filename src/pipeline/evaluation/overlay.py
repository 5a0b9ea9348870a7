"""The picture of one segmented case: slices with the outlines of truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.figures import new_figure, save, window

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Array = NDArray[Any]

TRUTH, PREDICTION = "#33D1FF", "#FF9F1C"
LINES = ("#FF9F1C", "#33D1FF", "#5BE36B", "#FF6FB5", "#FFE94A", "#B48CFF", "#FF5A4F", "#FFFFFF")  # legible on grey
NEAR_ISOTROPIC = 2.0  # greatest ratio of spacings at which planes across the slices still show anatomy
PLANES = {2: "Axial", 1: "Coronal", 0: "Sagittal"}  # by the axis that is cut, in patient axes


@dataclass(frozen=True)
class View:
    """One plane of a case as it is drawn: arrays of rows and columns, aspect is height over width of a pixel."""

    name: str
    image: Array
    truth: Array
    prediction: Array
    aspect: float


def overlay(
    image: Array,
    truth: Array,
    prediction: Array,
    *,
    class_names: Sequence[str],
    spacing: Sequence[float],
    path: Path,
    title: str = "",
    affine: Array | None = None,
) -> None:
    """Draw the image beside the same image with the outlines of truth and prediction.

    image: (H, W), shown as rows and columns, or (X, Y, Z). truth, prediction: class indices of the same shape.
    class_names: by class index, background first. spacing: mm per voxel. affine: (4, 4) voxel to RAS+ mm of a volume;
    with it the planes are shown as radiologists see them (patient's right on the left, front on top). Of a volume the
    slice is taken that shows most of every class; coronal and sagittal ones too if voxels are nearly cubes. With
    several classes the truth is filled and the prediction outlined, one colour per class.
    """
    if image.ndim == 3:
        image, truth, prediction, spacing = as_radiologists_see(image, truth, prediction, spacing, affine)
        views = _views(image, truth, prediction, len(class_names), spacing, named=affine is not None)
    else:
        views = [View("", image, truth, prediction, spacing[0] / spacing[1])]
    low, high = window(image)
    classes = [index for index in range(1, len(class_names)) if (truth == index).any() or (prediction == index).any()]
    widths = [view.image.shape[1] / (view.image.shape[0] * view.aspect) for view in views]
    if len(views) == 1:  # image and outlines side by side
        figure = new_figure(2 * 3.4 * min(max(widths[0], 0.5), 2.0), 4.1)
        grid = figure.subplots(1, 2, squeeze=False)
    else:
        figure = new_figure(2.7 * sum(widths), 6.3)
        grid = figure.subplots(2, len(views), squeeze=False, width_ratios=widths).T
    for view, (plain, outlined) in zip(views, grid, strict=True):
        for panel in (plain, outlined):
            origin = "lower" if image.ndim == 3 else "upper"
            panel.imshow(view.image, cmap="gray", vmin=low, vmax=high, aspect=view.aspect, origin=origin)
            panel.set_axis_off()
        plain.set_title(view.name, fontsize=9)
        for index in classes:
            several = len(classes) > 1
            colour = LINES[(index - 1) % len(LINES)]
            (_fill if several else outline)(outlined, view.truth == index, colour if several else TRUTH)
            outline(outlined, view.prediction == index, colour if several else PREDICTION)
    figure.legend(handles=_legend(class_names, classes), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    save(figure, path)


def _views(
    image: Array, truth: Array, prediction: Array, n_classes: int, spacing: Sequence[float], *, named: bool
) -> list[View]:
    near_isotropic = max(spacing) / min(spacing) <= NEAR_ISOTROPIC
    views = []
    # A class that the truth has is looked for there; a poor prediction would lead to slices that show nothing.
    shown = np.where((truth > 0) | np.isin(prediction, np.unique(truth)), truth, prediction)
    for axis in PLANES if near_isotropic else [int(np.argmax(spacing))]:
        at = fullest(shown, axis, n_classes)
        across, along = (step for other, step in enumerate(spacing) if other != axis)
        name = f"{PLANES[axis] if named else f'Axis {axis}'}, slice {at + 1} of {image.shape[axis]}"
        planes = [np.take(array, at, axis=axis).T for array in (image, truth, prediction)]
        views.append(View(name, planes[0], planes[1], planes[2], along / across))
    return views


def outline(panel: Axes, mask: Array, colour: str) -> None:
    if mask.any():
        # Padded, so that an outline closes where the mask meets the border of the image.
        rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
        panel.contour(columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.3)
        panel.set_xlim(-0.5, mask.shape[1] - 0.5)
        bottom, top = -0.5, mask.shape[0] - 0.5
        panel.set_ylim((top, bottom) if panel.yaxis_inverted() else (bottom, top))


def _fill(panel: Axes, mask: Array, colour: str) -> None:
    from matplotlib.colors import to_rgba

    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, 0.4)
    panel.imshow(layer, aspect=panel.get_aspect(), origin=panel.images[0].origin, interpolation="nearest")


def _legend(class_names: Sequence[str], classes: Sequence[int]) -> list[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if len(classes) == 1:
        name = class_names[classes[0]]
        return [
            Line2D([], [], color=TRUTH, label=f"{name}, truth"),
            Line2D([], [], color=PREDICTION, label=f"{name}, prediction"),
        ]
    handles: list[Artist] = [
        Patch(color=LINES[(index - 1) % len(LINES)], label=class_names[index]) for index in classes
    ]
    if classes:
        handles += [
            Patch(color="0.5", alpha=0.5, label="fill: truth"),
            Line2D([], [], color="0.3", label="line: prediction"),
        ]
    return handles


def as_radiologists_see(
    image: Array, truth: Array, prediction: Array, spacing: Sequence[float], affine: Array | None
) -> tuple[Array, Array, Array, Sequence[float]]:
    """Turn the voxel axes to right-to-left, back-to-front, foot-to-head (LAS)."""
    if affine is None:
        return image, truth, prediction, spacing
    import nibabel

    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(("L", "A", "S"))
    )
    turned = [nibabel.orientations.apply_orientation(array, turn) for array in (image, truth, prediction)]
    steps = [0.0, 0.0, 0.0]
    for step, target in zip(spacing, turn[:, 0], strict=True):
        steps[int(target)] = step
    return turned[0], turned[1], turned[2], steps


def fullest(mask: Array, axis: int, n_classes: int) -> int:
    """Index of the slice that shows most of all classes, each by its share of its own fullest slice."""
    others = tuple(other for other in range(3) if other != axis)
    score = np.zeros(mask.shape[axis])
    for index in range(1, n_classes):
        area = (mask == index).sum(axis=others)
        score += area / max(int(area.max()), 1)
    return int(score.argmax()) if score.any() else mask.shape[axis] // 2
