"""Pictures of a run: learning curves, a case with its outlines, confusion matrix and ROC curves, all as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.classification_metrics import classification_metrics, confusion_matrix, ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

# Okabe and Ito's palette, told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
RIGHT, WRONG = "#009E73", "#D55E00"
DPI = 150


def learning_curves(history: pd.DataFrame, path: Path, *, panels: Mapping[str, str]) -> None:
    """Draw one panel per column of the history over the epochs, one line per fold.

    history: columns ``fold``, ``epoch`` and those of ``panels`` (column to title, in order); NaN where an epoch has
    no value.
    """
    figure = new_figure(3.4 * len(panels), 2.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (column, title) in zip(axes, panels.items(), strict=True):
        for index, (fold, of_fold) in enumerate(history.groupby("fold", sort=True)):
            known = of_fold.dropna(subset=[column]).sort_values("epoch")
            # One point alone makes no line.
            marker = "o" if len(known) == 1 else None
            colour = COLOURS[index % len(COLOURS)]
            panel.plot(known["epoch"], known[column], color=colour, marker=marker, lw=1.2, label=f"fold {fold}")
        panel.set_title(title)
        panel.set_xlabel("Epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        quiet(panel)
    if history["fold"].nunique() > 1:
        axes[0].legend(frameon=False, fontsize=7)
    save(figure, path)


def confusion_matrix_figure(truth: Array, probabilities: Array, class_names: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix: cases, and their share of the true class as the shade.

    truth: (n,) class indices. probabilities: (n, C).
    """
    counts = confusion_matrix(truth, probabilities.argmax(axis=1), len(class_names))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.6 * len(class_names)
    figure = new_figure(side + 0.6, side)
    panel = figure.subplots()
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        shade = "white" if share[row, column] > 0.5 else "black"
        text = f"{count}\n{share[row, column]:.0%}"
        panel.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
    ticks = range(len(class_names))
    panel.set_xticks(ticks, class_names, fontsize=8)
    if len(class_names) > 2:
        for label in panel.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    panel.set_yticks(ticks, class_names, fontsize=8)
    panel.set_xlabel("Predicted", fontsize=9)
    panel.set_ylabel("True", fontsize=9)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    save(figure, path)


def roc_figure(truth: Array, probabilities: Array, class_names: Sequence[str], path: Path) -> None:
    """Draw the ROC curve of each class against the rest (of two classes only the second).

    truth: (n,) class indices. probabilities: (n, C). Classes whose curve is undefined are left out.
    """
    from sklearn.metrics import roc_curve

    auroc = classification_metrics(truth, probabilities, class_names=class_names)["auroc"]["per_class"]
    scores = ranking(probabilities)
    figure = new_figure(3.6, 3.6)
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--")
    for index, name in enumerate(class_names):
        if np.isnan(auroc[name]) or (len(class_names) == 2 and index == 0):
            continue
        false_positive, true_positive, _ = roc_curve(truth == index, scores[:, index])
        label = f"{name}, {auroc[name]:.3f}"
        panel.plot(
            false_positive, true_positive, color=COLOURS[(len(panel.lines) - 1) % len(COLOURS)], lw=1.4, label=label
        )
    panel.set_xlabel("False positive rate")
    panel.set_ylabel("True positive rate")
    panel.set_xlim(-0.01, 1)
    panel.set_ylim(0, 1.01)
    panel.set_aspect("equal")
    if len(panel.lines) > 1:
        panel.legend(title="AUROC", frameon=False, fontsize=8, title_fontsize=8, loc="lower right", alignment="left")
    quiet(panel)
    save(figure, path)


def classification_gallery(
    images: Sequence[Array],
    truths: Sequence[int],
    probabilities: Array,
    path: Path,
    *,
    class_names: Sequence[str],
    titles: Sequence[str],
) -> None:
    """Draw cases side by side with their true class, predicted class and its probability.

    images: (H, W), or (H, W, D) of which the middle slice is shown. truths: class index of each. probabilities: (n, C).
    titles: e.g. best, median, worst.
    """
    figure = new_figure(2.6 * len(images), 3.3)
    axes = figure.subplots(1, len(images), squeeze=False)[0]
    for panel, image, truth, chances, title in zip(axes, images, truths, probabilities, titles, strict=True):
        # Axes of a volume run left to right first, those of a picture top to bottom.
        flat = image[:, :, image.shape[2] // 2].T if image.ndim == 3 else image
        low, high = window(flat)
        panel.imshow(flat, cmap="gray", vmin=low, vmax=high, origin="lower" if image.ndim == 3 else "upper")
        panel.set_xticks([])
        panel.set_yticks([])
        predicted = int(np.argmax(chances))
        colour = RIGHT if predicted == truth else WRONG
        for spine in panel.spines.values():
            spine.set(color=colour, linewidth=2)
        panel.set_title(title, fontsize=9)
        said = f"predicted {class_names[predicted]} ({chances[predicted]:.2f})"
        panel.set_xlabel(f"true {class_names[truth]}\n{said}", color=colour, fontsize=9)
    save(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure (inches) outside pyplot, so that no display is needed and nothing stays open."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def quiet(panel: Axes) -> None:
    """Leave of a plot's frame only what carries a scale."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.title.set_fontsize(9)
    for axis in (panel.xaxis, panel.yaxis):
        axis.label.set_fontsize(9)
    panel.tick_params(labelsize=8)
    panel.grid(color="0.92", lw=0.6)
    panel.set_axisbelow(True)


def window(image: Array) -> tuple[float, float]:
    """Grey values shown as black and white: the 0.5 and 99.5 percentiles of the finite ones."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, [0.5, 99.5])
    return float(low), float(high) if high > low else float(low) + 1.0


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor="white")
