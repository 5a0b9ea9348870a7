"""Flips at prediction: those that the augmentation of the experiment mirrors, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.case import Dataset, Labels
from pipeline.data.sides import Sides
from pipeline.errors import UserError
from pipeline.training.experiment import Experiment
from tests.experiments import FREE, unprepared

COLUMNS = Sides((1,), (), ())
DIFFERENT = Sides((0, 2), (), ())
PAIR = Sides((0,), (("left lung", "right lung"),), ((1, 2),))
LUNGS = "left lung and right lung are a pair"
OWN = "transforms.batch_augmentation=[{{_target_: pipeline.transforms.RandomMirror, prob: {prob}, axes: {axes}}}]"


def experiment(sides: Sides, spatial_dims: int, *overrides: str) -> Experiment:
    labels = Labels({1: "left lung", 2: "right lung"})
    dataset = Dataset("d", Path(), "segmentation", (), ("CT",), labels, (), spatial_dims)
    return unprepared(dataset, "inference.mirror_axes=auto", *overrides, sides=sides)


@pytest.mark.parametrize(
    ("sides", "dims", "given", "axes", "line"),
    [
        (FREE, 3, ["augmentation=nnunet"], [0, 1, 2], None),
        (FREE, 3, ["augmentation=upright"], [0], None),
        (FREE, 3, ["augmentation=light"], [], None),
        (COLUMNS, 2, ["augmentation=nnunet"], [0, 1], None),
        (COLUMNS, 2, ["augmentation=upright"], [1], None),
        (COLUMNS, 3, ["augmentation=upright"], [1], None),  # a plan has turned the axes: S, R, A
        (PAIR, 3, ["augmentation=nnunet"], [1, 2], f"mirroring: not along axis 0, left to right: {LUNGS}"),
        (PAIR, 3, ["augmentation=upright"], [], f"mirroring: not along axis 0, left to right: {LUNGS}"),
        (PAIR, 3, ["augmentation=nnunet", "transforms.mirror_axes=[0, 1]"], [1],
         f"flips at prediction: not along axis 0, left to right: {LUNGS}"),
        (FREE, 3, ["augmentation=upright", "transforms.mirror_axes=[1, 2]"], [1, 2], None),
        (FREE, 3, ["augmentation=upright", "transforms.mirror_axes=null"], [0, 1, 2], None),
        (DIFFERENT, 3, ["augmentation=upright"], [],
         "mirroring: along no axis, none runs from left to right in all images"),
        (FREE, 3, [OWN.format(prob=0, axes="[0]")], [], None),  # never mirrors
        (FREE, 3, [OWN.format(prob=0.5, axes="${derived.sides.axes}")], [0], None),
    ],
)  # fmt: skip
def test_flips_are_what_is_mirrored(
    sides: Sides, dims: int, given: list[str], axes: list[int], line: str | None
) -> None:
    found = experiment(sides, dims, *given)
    assert (found.mirror_axes, found.mirror_line()) == (axes, line)


def test_an_axis_that_no_image_has_is_told() -> None:
    with pytest.raises(UserError, match=r"RandomMirror: axes \[3\] must be of 0, 1 and 2"):
        _ = experiment(FREE, 3, OWN.format(prob=0.5, axes="[3]")).mirror_axes
    with pytest.raises(UserError, match="axes"):  # before any data are read
        experiment(FREE, 3, OWN.format(prob=0.5, axes="updown"))
