from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation.figures import (
    classification_gallery,
    confusion_matrix_figure,
    learning_curves,
    roc_figure,
    window,
)
from pipeline.evaluation.overlay import overlay

AFFINE = np.diag([1.0, 1.0, 1.2, 1.0])


def pixels(path):
    picture = np.asarray(Image.open(path).convert("RGB"), float)
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 5
    return picture


def has(picture, colour):
    """Does any pixel have about this colour (hex)?"""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(picture - wanted).max(axis=-1) < 12).any())


def volume(shape=(30, 36, 24)):
    image = np.random.default_rng(0).normal(size=shape)
    truth = np.zeros(shape, np.uint8)
    truth[8:20, 10:24, 6:18] = 1
    truth[8:14, 10:24, 6:18] = 2
    return image, truth, np.roll(truth, 2, axis=0)


def test_overlay_of_a_volume(tmp_path):
    image, truth, prediction = volume()
    path = tmp_path / "figures" / "case.png"
    names = ("background", "lung", "tumour")
    spacing = (1.0, 1.0, 1.2)
    overlay(image, truth, prediction, class_names=names, spacing=spacing, path=path, title="case", affine=AFFINE)
    three = pixels(path)
    assert has(three, "#FF9F1C")
    assert has(three, "#33D1FF")
    overlay(image, truth, prediction, class_names=names, spacing=(1.0, 1.0, 5.0), path=path)
    one = pixels(path)
    assert one.shape != three.shape  # thick slices: one plane only


def test_overlay_of_a_picture(tmp_path):
    image, truth, prediction = (array[:, :, 10] for array in volume())
    path = tmp_path / "case.png"
    overlay(image, truth > 0, prediction > 0, class_names=("background", "lung"), spacing=(1, 1), path=path)
    picture = pixels(path)
    assert has(picture, "#33D1FF")
    assert has(picture, "#FF9F1C")


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 12)])
def test_overlay_of_empty_and_full_masks_and_flat_images(tmp_path, shape):
    path = tmp_path / "case.png"
    names = ("background", "lung")
    empty, full = np.zeros(shape, np.uint8), np.ones(shape, np.uint8)
    spacing = (1.0,) * len(shape)
    for image in (np.zeros(shape), np.full(shape, np.nan)):
        overlay(image, empty, full, class_names=names, spacing=spacing, path=path)
        overlay(image, empty, empty, class_names=names, spacing=spacing, path=path)
        assert path.stat().st_size > 1000


def test_overlay_shows_the_same_anatomy_whatever_the_voxel_order(tmp_path):
    image, truth, prediction = volume()
    keywords = {"class_names": ("background", "lung", "tumour"), "path": tmp_path / "a.png"}
    overlay(image, truth, prediction, spacing=(1.0, 1.0, 1.2), affine=AFFINE, **keywords)
    first = pixels(tmp_path / "a.png")
    turned = [array.transpose(2, 0, 1)[:, ::-1] for array in (image, truth, prediction)]
    affine = np.array([[0, -1.0, 0, 29], [0, 0, 1.0, 0], [1.2, 0, 0, 0], [0, 0, 0, 1.0]])
    overlay(*turned, spacing=(1.2, 1.0, 1.0), affine=affine, **keywords)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), first)


def test_learning_curves(tmp_path):
    epochs = np.arange(12)
    history = pd.concat(
        pd.DataFrame({"fold": fold, "epoch": epochs, "loss": np.exp(-epochs / 5) + fold, "lr": 0.01}) for fold in (0, 1)
    )
    history["dice"] = np.where(history["epoch"] % 3, np.nan, 0.5)
    panels = {"loss": "Training loss", "dice": "Validation Dice", "lr": "Learning rate"}
    learning_curves(history, tmp_path / "curves.png", panels=panels)
    picture = pixels(tmp_path / "curves.png")
    assert has(picture, "#0072B2")
    assert has(picture, "#E69F00")
    learning_curves(history.assign(dice=np.nan).head(1), tmp_path / "curves.png", panels=panels)
    pixels(tmp_path / "curves.png")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classification_figures(tmp_path, n_classes):
    rng = np.random.default_rng(0)
    names = [f"class {index}" for index in range(n_classes)]
    truth, probabilities = rng.integers(n_classes, size=50), rng.dirichlet(np.ones(n_classes), 50)
    confusion_matrix_figure(truth, probabilities, names, tmp_path / "confusion.png")
    roc_figure(truth, probabilities, names, tmp_path / "roc.png")
    images = [rng.normal(size=(28, 28)), rng.normal(size=(28, 28)), rng.normal(size=(20, 28, 9))]
    classification_gallery(
        images, [0, 1, 1], np.eye(n_classes)[[0, 0, 1]], tmp_path / "gallery.png", class_names=names, titles="abc"
    )
    for name in ("confusion", "roc", "gallery"):
        pixels(tmp_path / f"{name}.png")


def test_roc_of_one_class_only(tmp_path):
    roc_figure(np.zeros(4, int), np.full((4, 2), 0.5), ["a", "b"], tmp_path / "roc.png")
    pixels(tmp_path / "roc.png")


def test_window_ignores_outliers_and_nan():
    image = np.concatenate([np.linspace(0, 100, 1001), [1e9, np.nan]])
    low, high = window(image)
    assert 0 <= low < 1
    assert 99 < high <= 100
    assert window(np.full(5, 7.0)) == (7.0, 8.0)
