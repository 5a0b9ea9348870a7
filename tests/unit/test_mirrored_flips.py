"""Flips at prediction: those that the augmentation of the experiment mirrors, and what is said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.data.case import Case, Dataset, FileSource, Labels
from pipeline.data.sides import Sides
from pipeline.errors import UserError
from pipeline.training.experiment import Experiment

FREE = Sides((0,), (), ())
COLUMNS = Sides((1,), (), ())
DIFFERENT = Sides((0, 2), (), ())
PAIR = Sides((0,), (("left lung", "right lung"),), ((1, 2),))
LUNGS = "left lung and right lung are a pair"
OWN = "transforms.batch_augmentation=[{{_target_: pipeline.transforms.RandomMirror, prob: {prob}, axes: {axes}}}]"


def experiment(sides: Sides, spatial_dims: int, *overrides: str) -> Experiment:
    composed = validate(compose("train", ["inference.mirror_axes=auto", *overrides]), TrainConfig)
    assert isinstance(composed.model, TrainConfig)
    source = FileSource(Path("a.nii.gz"))
    case = Case("a", "a", {"CT": source}, label=source)
    nowhere: Any = None
    return Experiment(
        settings=composed.model,
        tree=composed.tree,
        dataset=Dataset("d", Path(), "segmentation", (case,), ("CT",), Labels({1: "a", 2: "b"}), (), spatial_dims),
        folds=(),
        store=nowhere,
        patch_size=(8,) * spatial_dims,
        spacing=(1.0,) * spatial_dims,
        channels=1,
        sides=sides,
        output=Path("/nowhere"),
        console=Console(quiet=True),
        trusted=(),
    )


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
         "mirroring: along no axis, images differ in the one from left to right"),
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
