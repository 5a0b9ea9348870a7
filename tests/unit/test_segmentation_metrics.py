from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from pipeline.evaluation.segmentation_metrics import segmentation_case_metrics
from pipeline.evaluation.surface import hausdorff_distance, surface_dice, surface_distances, surface_voxels

NAMES = ("background", "lung", "tumour")


def score(prediction, truth, spacing=None, names=NAMES, tolerance_mm=1.0):
    rows = segmentation_case_metrics(
        np.asarray(prediction, np.uint8),
        np.asarray(truth, np.uint8),
        class_names=names,
        spacing=spacing or (1.0,) * np.ndim(truth),
        tolerance_mm=tolerance_mm,
    )
    assert [row["class"] for row in rows] == list(names[1:])
    return {row["class"]: row for row in rows}


def blobs(shape, seed, n_classes=3):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return np.digitize(noise, np.quantile(noise, [0.6, 0.85])[: n_classes - 1]).astype(np.uint8)


def test_squares_by_hand():
    truth, prediction = np.zeros((10, 10)), np.zeros((10, 10))
    truth[2:5, 2:5] = 1
    prediction[2:5, 4:7] = 1
    row = score(prediction, truth, spacing=(2.0, 3.0), tolerance_mm=3.0)["lung"]
    assert row["dice"] == pytest.approx(2 * 3 / 18)
    # Of the 8 border pixels of each, the 3 in the shared column are at 0 mm, then 2 at 3 mm, 3 at 6 mm. The 95th
    # percentile of 8 sorted values stands at 6.65, between two sixes.
    assert row["hd95_mm"] == pytest.approx(6.0)
    assert row["surface_dice"] == pytest.approx(10 / 16)
    assert row["truth_ml"] == row["prediction_ml"] == pytest.approx(9 * 6 / 1000)
    assert row["volume_error_ml"] == row["volume_error_percent"] == 0
    assert row["empty"] == "neither"


def test_percentile_interpolates_by_hand():
    truth, prediction = np.zeros((1, 40)), np.zeros((1, 40))
    truth[0, :10] = 1
    prediction[0, :11] = 1
    # One row: each pixel is surface. Directed distances 0 x 10 and 1: position 0.95 * 10 = 9.5, so 0.5; back: 0.
    assert score(prediction, truth)["lung"]["hd95_mm"] == pytest.approx(0.5)


def test_volume_error_is_signed_and_in_ml():
    truth, prediction = np.zeros((10, 10, 10)), np.zeros((10, 10, 10))
    truth[:5] = 1
    prediction[:4] = 1
    row = score(prediction, truth, spacing=(2.0, 1.0, 0.5))["lung"]
    assert row["truth_ml"] == pytest.approx(0.5)
    assert row["volume_error_ml"] == pytest.approx(-0.1)
    assert row["volume_error_percent"] == pytest.approx(-20.0)


def test_empty_masks():
    empty, full = np.zeros((30, 40)), np.zeros((30, 40))
    full[3:5, 3:5] = 1
    both = score(empty, empty)["lung"]
    assert both["empty"] == "both"
    assert all(math.isnan(both[name]) for name in ("dice", "hd95_mm", "surface_dice", "volume_error_percent"))
    assert both["volume_error_ml"] == 0
    missed, false_positive = score(empty, full)["lung"], score(full, empty)["lung"]
    for row in (missed, false_positive):
        assert (row["dice"], row["surface_dice"], row["hd95_mm"]) == (0, 0, pytest.approx(50.0))
    assert (missed["empty"], false_positive["empty"]) == ("prediction", "truth")
    assert missed["volume_error_percent"] == -100.0
    assert math.isnan(false_positive["volume_error_percent"])


def test_diagonal_is_in_mm():
    empty, full = np.zeros((30, 40, 10)), np.ones((30, 40, 10))
    assert score(full, empty, spacing=(1.0, 1.0, 12.0))["lung"]["hd95_mm"] == pytest.approx(130.0)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((40, 50), (0.7, 0.7)), ((33, 28), (1.0, 2.5)), ((26, 30, 12), (0.7, 0.8, 3.0))]
)
@pytest.mark.parametrize("seed", range(4))
def test_equals_monai(shape, spacing, seed):
    truth = blobs(shape, seed)
    prediction = np.where(blobs(shape, seed + 100) > 1, blobs(shape, seed + 200), truth).astype(np.uint8)
    tolerance = 3 * 0.7  # a sum of spacings, where rounding decides what is within
    rows = score(prediction, truth, spacing=spacing, tolerance_mm=tolerance)
    hot = [
        torch.from_numpy(np.stack([mask == index for index in range(3)])[None]).float() for mask in (prediction, truth)
    ]
    expected = {
        "dice": compute_dice(*hot, include_background=False)[0],
        "hd95_mm": compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)[0],
        "surface_dice": compute_surface_dice(*hot, [tolerance] * 2, spacing=spacing)[0],
    }
    for metric, values in expected.items():
        np.testing.assert_allclose([row[metric] for row in rows.values()], values.numpy(), rtol=1e-5, err_msg=metric)


def test_surface_equals_erosion():
    mask = blobs((20, 21, 9), 3) > 0
    np.testing.assert_array_equal(surface_voxels(mask), mask ^ ndimage.binary_erosion(mask))
    np.testing.assert_array_equal(surface_voxels(np.ones((3, 3), bool)), [[1, 1, 1], [1, 0, 1], [1, 1, 1]])


def test_perfect_prediction():
    truth = blobs((20, 20, 10), 1)
    for row in score(truth, truth, spacing=(1.0, 1.0, 3.0), tolerance_mm=0.0).values():
        assert (row["dice"], row["surface_dice"], row["hd95_mm"]) == (1, 1, 0)


def test_unmoved_by_memory_order_dtype_and_position():
    prediction, truth = blobs((18, 20, 9), 1), blobs((18, 20, 9), 2)
    spacing = (0.7, 0.9, 2.0)
    expected = score(prediction, truth, spacing=spacing)
    assert score(np.asfortranarray(prediction), truth, spacing=spacing) == expected
    wide = segmentation_case_metrics(
        prediction.astype(np.int64), truth.astype(np.int32), class_names=NAMES, spacing=spacing, tolerance_mm=1.0
    )
    assert wide == list(expected.values())
    shifted = score(*(np.pad(mask, ((3, 1), (0, 4), (2, 2))) for mask in (prediction, truth)), spacing=spacing)
    for name, row in expected.items():
        for metric in ("dice", "hd95_mm", "surface_dice"):
            assert shifted[name][metric] == pytest.approx(row[metric], rel=1e-6)


def test_classes_and_axes_may_change_places():
    prediction, truth = blobs((18, 20, 9), 1), blobs((18, 20, 9), 2)
    expected = score(prediction, truth, spacing=(0.7, 0.9, 2.0))
    swap = np.array([0, 2, 1], np.uint8)
    swapped = score(swap[prediction], swap[truth], spacing=(0.7, 0.9, 2.0), names=("background", "tumour", "lung"))
    assert swapped == expected
    turned = score(prediction.transpose(2, 0, 1), truth.transpose(2, 0, 1), spacing=(2.0, 0.7, 0.9))
    assert turned["lung"]["hd95_mm"] == pytest.approx(expected["lung"]["hd95_mm"])


def test_distances_of_two_points():
    prediction, truth = np.zeros((2, 9, 9), bool)
    prediction[1, 1] = truth[4, 5] = True
    distances = surface_distances(prediction, truth, (1.0, 1.0))
    assert [directed.tolist() for directed in distances] == [[5.0], [5.0]]
    assert hausdorff_distance(distances) == 5.0
    assert (surface_dice(distances, 4.99), surface_dice(distances, 5.0)) == (0.0, 1.0)


def test_refuses_what_does_not_fit():
    mask = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="shape"):
        score(mask, np.zeros((4, 5)))
    with pytest.raises(ValueError, match="spacing"):
        score(mask, mask, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="truth holds class index 3; there are 3 classes"):
        score(mask, mask + 3)
    with pytest.raises(ValueError, match="not empty"):
        surface_distances(mask > 0, mask > 0, (1.0, 1.0))
