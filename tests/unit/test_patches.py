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


def two_objects() -> Prepared:
    """Class 1 at one corner, class 2 at the other, one voxel each."""
    label = np.zeros((64, 64), np.uint8)
    label[4, 4], label[60, 60] = 1, 2
    return prepared(label)


def centred_class(sampling: PatchSampling, case: Prepared, seed: int, place: int = 0) -> int:
    start = sampling.place(case, np.random.default_rng(seed), place).start
    assert case.label is not None
    return int(cut(case.label, start, (3, 3))[1, 1])


def test_centres_follow_the_class_weights() -> None:
    even = PatchSampling("foreground", (3, 3), 1.0)
    assert abs(np.mean([centred_class(even, two_objects(), seed) == 2 for seed in range(400)]) - 0.5) < 0.1
    heavy = PatchSampling("foreground", (3, 3), 1.0, {2: 4.0})  # class 1 is left out: 1
    assert abs(np.mean([centred_class(heavy, two_objects(), seed) == 2 for seed in range(400)]) - 0.8) < 0.08
    only = PatchSampling("weighted", (3, 3), 1.0, {1: 0.0})
    assert {centred_class(only, two_objects(), seed) for seed in range(30)} == {2}


@pytest.mark.parametrize(
    ("fraction", "batch", "forced"),
    [(0.33, 2, [1]), (0.33, 3, [2]), (0.33, 9, [6, 7, 8]), (0.33, 1, [0]), (1.0, 3, [0, 1, 2]), (0.0, 3, []),
     (0.01, 4, [3])],
)  # fmt: skip
def test_the_last_of_each_batch_are_forced(fraction: float, batch: int, forced: list[int]) -> None:
    """nnU-Net: example i of b is forced unless i < round(b (1 - fraction)); here at least one."""
    sampling = PatchSampling("foreground", (3, 3), fraction, forced="per_batch", batch=batch)
    for place in range(3 * batch):
        hits = [centred_class(sampling, two_objects(), seed, place) > 0 for seed in range(6)]
        assert all(hits) if place % batch in forced else not all(hits)


def test_a_fallback_is_told() -> None:
    empty, rng = prepared(np.zeros((12, 12), np.uint8)), np.random.default_rng(0)
    assert PatchSampling("foreground", (4, 4), 1.0).place(empty, rng).fallback
    assert PatchSampling("weighted", (4, 4), 1.0).place(empty, rng).fallback
    assert PatchSampling("foreground", (4, 4), 1.0, {1: 0.0, 2: 0.0}).place(two_objects(), rng).fallback
    assert not PatchSampling("balanced", (4, 4), 1.0).place(empty, rng).fallback
    assert not PatchSampling("uniform", (4, 4), 1.0).place(empty, rng).fallback
    assert not PatchSampling("foreground", (4, 4), 0.0).place(empty, rng).fallback
    told = [
        PatchSampling("foreground", (4, 4), 0.5).place(empty, np.random.default_rng(i)).fallback for i in range(200)
    ]
    assert 70 < sum(told) < 130
