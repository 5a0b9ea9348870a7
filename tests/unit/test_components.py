"""Largest components of masks drawn by hand, and Dice from pieces against Dice from voxels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.labels import IGNORED, Labels
from pipeline.evaluation.components import FOREGROUND, LargestComponents, Overlaps
from pipeline.evaluation.segmentation_metrics import segmentation_case_metrics

TWO = Labels({0: "background", 1: "lung", 2: "tumour"})


def mask(*rows: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows], np.uint8)


DRAWN = mask(
    "11.....1",
    "11..2...",
    "112....2",
    "........",
    ".1......",
)


def test_all_of_the_foreground() -> None:
    kept = LargestComponents(TWO, "corners")(DRAWN, [FOREGROUND])
    expected = mask("11......", "11......", "112.....", "........", "........")
    assert np.array_equal(kept, expected)
    assert np.array_equal(DRAWN[0], [1, 1, 0, 0, 0, 0, 0, 1])  # the argument is as it was


def test_each_class_by_itself() -> None:
    components = LargestComponents(TWO, "corners")
    lung = mask("11......", "11..2...", "112....2", "........", "........")
    assert np.array_equal(components(DRAWN, ["lung"]), lung)
    tumour = mask("11.....1", "11..2...", "11......", "........", ".1......")  # of three the first
    assert np.array_equal(components(DRAWN, ["tumour"]), tumour)
    assert np.array_equal(components(DRAWN, [FOREGROUND, "tumour"]), components(DRAWN, [FOREGROUND]))


def test_connectivity_in_the_plane_and_in_space() -> None:
    corner = mask("11..", "11..", "..1.")
    assert np.array_equal(LargestComponents(TWO, "corners")(corner, [FOREGROUND]), corner)
    assert LargestComponents(TWO, "faces")(corner, [FOREGROUND]).sum() == 4
    volume = np.zeros((3, 3, 3), np.uint8)
    volume[:2, :2, :2] = 1
    volume[0, 2, 2] = volume[2, 2, 2] = 1  # by an edge, by a corner
    sizes = [LargestComponents(TWO, name)(volume, [FOREGROUND]).sum() for name in ("faces", "edges", "corners")]  # type: ignore[arg-type]
    assert sizes == [8, 9, 10]
    with pytest.raises(ValueError, match="connectivity"):
        LargestComponents(TWO, "nothing")  # type: ignore[arg-type]


def test_what_leaves_a_region_becomes_the_region_around_it() -> None:
    labels = Labels({0: "background", 1: "rim", 2: "core"}, regions={"whole": (1, 2), "inner": (2,)})
    drawn = mask("1111111.", "1221121.", "1221111.", ".......2")
    components = LargestComponents(labels, "faces")
    assert np.array_equal(components(drawn, ["inner"]), mask("1111111.", "1221111.", "1221111.", ".......1"))
    assert np.array_equal(components(drawn, ["whole"]), mask("1111111.", "1221121.", "1221111.", "........"))


def test_nothing_to_remove_gives_the_same_array() -> None:
    components = LargestComponents(TWO, "corners")
    empty, whole = np.zeros((4, 5), np.uint8), mask("112", "112")
    for drawn in (empty, whole):
        assert components(drawn, [FOREGROUND, "lung", "tumour"]) is drawn
    assert components(DRAWN, []) is DRAWN
    cut = components.cut(whole)
    assert components.cut(empty) is None
    assert cut is not None and not cut.pieces.several


@pytest.mark.parametrize("noise", [0.03, 0.5])
def test_dice_of_pieces_is_that_of_the_masks(noise: float) -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((14, 12, 10), np.uint8)
    truth[2:8, 2:8, 2:8] = 1
    truth[8:11, 3:6, 3:6] = 2
    truth[:, :, 9] = IGNORED
    drawn = np.where(truth == IGNORED, 0, truth).astype(np.uint8)
    wrong = rng.random(truth.shape) < noise
    drawn[wrong] = rng.integers(0, 3, wrong.sum())
    components = LargestComponents(TWO, "faces")
    cut = components.cut(drawn)
    assert cut is not None and cut.pieces.several
    overlaps = Overlaps(cut, truth)
    for steps in ([], [FOREGROUND], ["tumour"], [FOREGROUND, "lung", "tumour"]):
        rows = segmentation_case_metrics(
            components(drawn, steps),
            truth,
            class_names=TWO.names,
            spacing=(1, 1, 1),
            tolerance_mm=1,
            ignored=IGNORED,
        )
        found = overlaps.dice(components.after(cut.pieces, steps), TWO.parts)
        assert found == pytest.approx({row["class"]: row["dice"] for row in rows}, nan_ok=True)
