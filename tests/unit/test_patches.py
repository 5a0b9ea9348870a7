"""Placement and cutting of patches."""

import numpy as np
import pytest

from pipeline.data.patches import PatchSampling, cut
from pipeline.data.preprocessing import Prepared, class_voxels


def prepared(label: np.ndarray) -> Prepared:
    return Prepared(
        image=np.zeros((1, *label.shape), np.float32),
        label=label,
        affine=np.eye(4),
        native_shape=label.shape,
        native_affine=np.eye(4),
        centres=class_voxels(label, 100),
        counts={},
    )


def test_cut_inside_copies() -> None:
    array = np.arange(2 * 5 * 6).reshape(2, 5, 6)
    patch = cut(array, (1, 2), (3, 4))
    assert np.array_equal(patch, array[:, 1:4, 2:6])
    patch[:] = 0
    assert array[0, 1, 2] == 8


def test_cut_outside_is_zero() -> None:
    array = np.ones((1, 3, 3))
    patch = cut(array, (-1, 1), (5, 4))
    expected = np.zeros((1, 5, 4))
    expected[0, 1:4, 0:2] = 1
    assert np.array_equal(patch, expected)


def test_foreground_patches_contain_their_class() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[30, 31] = 1
    sampling = PatchSampling("foreground", (8, 8), 1.0)
    for draw in range(50):
        start = sampling.start(prepared(label), np.random.default_rng(draw))
        assert (cut(label, start, (8, 8)) == 1).any()
        assert all(0 <= s <= 32 for s in start)


@pytest.mark.parametrize(
    ("mode", "least", "most"), [("uniform", 0.0, 0.1), ("foreground", 0.25, 0.43), ("balanced", 0.4, 0.6)]
)
def test_share_of_patches_on_a_small_object(mode: str, least: float, most: float) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[40:42, 40:42] = 1
    fraction = {"uniform": 1.0, "foreground": 1 / 3, "balanced": 1.0}[mode]
    sampling = PatchSampling(mode, (4, 4), fraction)  # type: ignore[arg-type]
    hits = [
        (cut(label, sampling.start(prepared(label), np.random.default_rng([1, draw])), (4, 4)) == 1).any()
        for draw in range(600)
    ]
    assert least <= np.mean(hits) <= most


def test_a_case_without_foreground_falls_back_to_uniform() -> None:
    sampling = PatchSampling("foreground", (4, 4), 1.0)
    starts = {sampling.start(prepared(np.zeros((12, 12), np.uint8)), np.random.default_rng(i)) for i in range(80)}
    assert len(starts) > 20


def test_images_smaller_than_the_patch_are_centred() -> None:
    sampling = PatchSampling("uniform", (8, 4), 0.0)
    start = sampling.start(prepared(np.ones((4, 10), np.uint8)), np.random.default_rng(0))
    assert start[0] in (-4, -3, -2, -1, 0) and 0 <= start[1] <= 6


def test_class_voxels_are_where_the_class_is() -> None:
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:3, 2, 3:6] = 2
    voxels = class_voxels(label, 4)
    assert set(voxels) == {0, 2}
    assert len(voxels[2]) == 4 and len(voxels[0]) == 4
    assert (label[tuple(voxels[2].T)] == 2).all()
