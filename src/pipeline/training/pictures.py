"""The figures of a finished cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data.case import Case, Dataset, FileSource
from pipeline.data.image_io import read_mask
from pipeline.data.modalities import read_modalities
from pipeline.data.preprocessing import read_label
from pipeline.evaluation.figures import classification_gallery, confusion_matrix_figure, learning_curves, roc_figure
from pipeline.evaluation.overlay import overlay


def draw_curves(histories: Mapping[int, Path], path: Path, metric: str) -> None:
    """Loss, validation metric and learning rate over the epochs of every fold; ``histories``: fold to metrics.csv."""
    parts = [pd.read_csv(file).assign(fold=fold) for fold, file in histories.items() if file.is_file()]
    if not parts:
        return
    history = pd.concat(parts, ignore_index=True)
    panels = {"train_loss": "Training loss", "val_metric": f"Validation {metric}", "lr": "Learning rate"}
    learning_curves(
        history, path, panels={name: title for name, title in panels.items() if history[name].notna().any()}
    )


def representative(scores: pd.Series) -> dict[str, str]:
    """The cases of the best, median and worst score; ``scores`` is indexed by case."""
    ordered = scores.dropna().sort_values(ascending=False, kind="stable")
    if ordered.empty:
        return {}
    places = {"best": 0, "median": len(ordered) // 2, "worst": len(ordered) - 1}
    return {name: str(ordered.index[place]) for name, place in places.items()}


def draw_segmentation(table: pd.DataFrame, dataset: Dataset, predictions: Mapping[str, Path], folder: Path) -> None:
    """Overlays of the best, median and worst case by mean Dice, among the cases in which most classes were scored.

    ``predictions``: case to its predicted mask.
    """
    assert dataset.labels is not None
    cases = {case.case_id: case for case in dataset.cases}
    of_case = table.groupby("case_id")["dice"].agg(["mean", "count"])
    of_case = of_case[of_case["count"] == of_case["count"].max()]
    for rank, case_id in representative(of_case["mean"]).items():
        case = cases[case_id]
        image, _ = read_modalities(case, dataset.modalities, missing_voxels="fill")
        predicted = dataset.labels.to_index(read_mask(FileSource(predictions[case_id])).array)[0]
        dice = table.loc[table["case_id"] == case_id].set_index("class")["dice"]
        said = ", ".join(f"{name} {value:.3f}" for name, value in dice.items() if not np.isnan(value))
        overlay(
            image.array[0],
            read_label(case, dataset.labels).array[0],
            predicted,
            class_names=dataset.labels.names,
            spacing=image.spacing,
            path=folder / f"{rank}.png",
            title=f"{rank}: {case_id}, Dice {said}",
            affine=image.affine,
        )


def draw_classification(table: pd.DataFrame, dataset: Dataset, folder: Path) -> None:
    """ROC, confusion matrix and the most, middling and least rightly classified case."""
    names = dataset.classes
    truth = table["target"].map({name: index for index, name in enumerate(names)}).to_numpy(np.int64)
    probabilities = table[list(names)].to_numpy(float)
    confusion_matrix_figure(truth, probabilities, names, folder / "confusion_matrix.png")
    roc_figure(truth, probabilities, names, folder / "roc.png")
    of_truth = pd.Series(probabilities[np.arange(len(truth)), truth], index=table["case_id"])
    of_truth = of_truth[~of_truth.index.duplicated()]  # the first repeat
    chosen = representative(of_truth)
    cases: dict[str, Case] = {case.case_id: case for case in dataset.cases}
    places = [int(np.flatnonzero(table["case_id"] == case_id)[0]) for case_id in chosen.values()]
    chosen_cases = [cases[case_id] for case_id in chosen.values()]
    images = [read_modalities(case, dataset.modalities, missing_voxels="fill")[0] for case in chosen_cases]
    classification_gallery(
        [image.array[0] for image in images],
        [int(truth[place]) for place in places],
        probabilities[places],
        folder / "cases.png",
        class_names=names,
        titles=[f"{rank}: {case_id}" for rank, case_id in chosen.items()],
    )
