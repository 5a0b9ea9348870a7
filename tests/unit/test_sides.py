"""Left and right: names that are pairs, the axis between them, and mirroring that respects both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.case import ArraySource, Case, Dataset, FileSource, Labels
from pipeline.data.labels import IGNORED
from pipeline.data.sides import Sides, left_right_axis, pairs_of, sides_of
from pipeline.transforms import RandomMirror
from pipeline.transforms.mirror import mirrored_axes

RAS = np.diag([1.0, 1.0, 3.0, 1.0])
TURNED = np.array([[0, 0, -2.0, 5], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])  # x along the last axis


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("left lung", "right lung"),
        ("lung_left", "lung_right"),
        ("LeftKidney", "RightKidney"),
        ("l_hippocampus", "r_hippocampus"),
        ("Amygdala_L", "Amygdala_R"),
        ("femurL", "femurR"),
        ("rib (r) 4", "rib (l) 4"),
        ("lh.cortex", "rh.cortex"),
        ("ventriculus sinister", "ventriculus dexter"),
        ("arteria pulmonalis sinistra", "arteria pulmonalis dextra"),
        ("Lunge links", "Lunge rechts"),
        ("LEFT", "right"),
    ],
)
def test_pairs(first: str, second: str) -> None:
    assert pairs_of([first, "heart", second]) == [(first, second)]


@pytest.mark.parametrize(
    "names",
    [
        ["left lung", "heart"],
        ["lung", "liver", "tumour"],
        ["bright", "blight"],
        ["lesion", "resion"],
        ["copyright", "copyrite"],
        ["Anterior", "Posterior"],
        ["left lung", "right kidney"],
    ],
)
def test_no_pairs(names: list[str]) -> None:
    assert pairs_of(names) == []


def test_the_axis_between_left_and_right() -> None:
    assert left_right_axis(RAS, 3, FileSource(Path("a.nii.gz"))) == 0
    assert left_right_axis(TURNED, 3, FileSource(Path("a.nrrd"))) == 2
    assert left_right_axis(np.eye(4), 2, FileSource(Path("a.png"))) == 1  # columns
    assert left_right_axis(np.eye(4), 2, ArraySource(Path("a.npz"), "images", 0)) == 1
    assert left_right_axis(np.eye(4), 2, FileSource(Path("a.nii"))) == 0
    assert left_right_axis(np.eye(4)[[1, 0, 2, 3]], 2, FileSource(Path("a.mha"))) == 1
    assert left_right_axis(np.eye(4)[[2, 0, 1, 3]], 2, FileSource(Path("a.nii"))) is None  # across a sagittal slice


def test_the_axis_of_a_tilted_volume_of_thick_slices() -> None:
    """By direction: x has more millimetres along the slices' normal, which is 4 mm long and 8 degrees off."""
    sine, cosine = np.sin(np.radians(8)), np.cos(np.radians(8))
    turn = np.array([[cosine, 0, sine, 0], [0, 1, 0, 0], [-sine, 0, cosine, 0], [0, 0, 0, 1]])
    affine = turn @ np.diag([0.5, 0.5, 4.0, 1.0])
    assert abs(affine[0, 2]) > abs(affine[0, 0])
    assert left_right_axis(affine, 3, FileSource(Path("a.nii.gz"))) == 0


def dataset(labels: Labels, *present: tuple[str, ...] | None) -> Dataset:
    source = FileSource(Path("a.nii.gz"))
    cases = tuple(
        Case(f"{n}", f"{n}", {"CT": source}, label=source, labels_present=names) for n, names in enumerate(present)
    )
    return Dataset("d", Path(), "segmentation", cases, ("CT",), labels, (), 3)


LUNGS = Labels({0: "background", 1: "left lung", 2: "heart", 3: "right lung"})


def test_the_sides_of_a_data_set() -> None:
    sides = sides_of(dataset(LUNGS, None), [RAS])
    assert sides == Sides((0,), (("left lung", "right lung"),), ((1, 3),))
    assert sides.mirrored(3) == [1, 2]
    assert sides.line("mirroring") == "mirroring: not along axis 0, left to right: left lung and right lung are a pair"
    assert sides_of(dataset(LUNGS, None, None), [RAS, TURNED]).mirrored(3) == [1]  # grids differ
    plain = sides_of(dataset(Labels({1: "lung"}), None), [RAS])
    assert plain.mirrored(2) == [0, 1] and plain.line("mirroring") is None


def test_a_mask_of_one_side_cannot_be_exchanged() -> None:
    assert sides_of(dataset(LUNGS, None, ("left lung",)), [RAS, RAS]).swaps == ()
    assert sides_of(dataset(LUNGS, None, ("heart",)), [RAS, RAS]).swaps == ((1, 3),)
    regions = Labels({1: "a", 2: "b"}, regions={"left": (1,), "right": (2,)})
    found = sides_of(dataset(regions, None), [RAS])
    assert found.pairs == (("left", "right"),) and found.swaps == ()


def augmented(transform: RandomMirror, image: torch.Tensor, label: torch.Tensor) -> set[tuple[str, str]]:
    """What 60 draws make of an image and its label, as texts."""
    seen = set()
    for seed in range(60):
        pair = image.clone(), label.clone()
        transform.augment(*pair, np.random.default_rng(seed))
        seen.add((str(pair[0].tolist()), str(pair[1].tolist())))
    return seen


IMAGE = torch.arange(4.0).view(1, 2, 2)
LABEL = torch.tensor([[[1, 2], [3, IGNORED]]], dtype=torch.uint8)
FLIPPED = {(): [[1, 2], [3, 255]], (0,): [[3, 255], [1, 2]], (1,): [[2, 1], [255, 3]], (0, 1): [[255, 3], [2, 1]]}


def expected(axes: list[int], swapped: bool) -> set[tuple[str, str]]:
    found = set()
    for flip, label in FLIPPED.items():
        if set(flip) <= set(axes):
            exchange = {1: 3, 3: 1} if swapped and 0 in flip else {}
            image = IMAGE.flip([axis + 1 for axis in flip]) if flip else IMAGE
            found.add((str(image.tolist()), str([[[exchange.get(v, v) for v in row] for row in label]])))
    return found


PAIRED = {"axes": [0], "paired": True, "swaps": [[1, 3]]}
FREE = {"axes": [0], "paired": False, "swaps": []}


def test_auto_spares_left_and_right() -> None:
    assert augmented(RandomMirror(0.5, "auto", PAIRED), IMAGE, LABEL) == expected([1], False)
    assert augmented(RandomMirror(0.5, "auto", FREE), IMAGE, LABEL) == expected([0, 1], False)


def test_from_left_to_right_only() -> None:
    assert augmented(RandomMirror(0.5, "left_right", FREE), IMAGE, LABEL) == expected([0], False)
    assert augmented(RandomMirror(0.5, "left_right", PAIRED), IMAGE, LABEL) == expected([], False)
    assert augmented(RandomMirror(0.5, "left_right", PAIRED, swap=True), IMAGE, LABEL) == expected([0], True)
    assert mirrored_axes("left_right", FREE | {"axes": [2]}) == (2,)
    assert mirrored_axes("left_right", FREE | {"axes": [0, 2]}) == ()  # where images differ in the axis
    assert mirrored_axes("left_right", FREE | {"axes": []}) == ()


def test_every_axis_there_is() -> None:
    assert augmented(RandomMirror(0.5), IMAGE, LABEL) == expected([0, 1], False)
    assert mirrored_axes(None, PAIRED) == mirrored_axes("auto", FREE) == (0, 1, 2)


def test_paired_classes_change_places() -> None:
    assert augmented(RandomMirror(0.5, "auto", PAIRED, swap=True), IMAGE, LABEL) == expected([0, 1], True)
    assert augmented(RandomMirror(0.5, [1], PAIRED, swap=True), IMAGE, LABEL) == expected([1], True)


@pytest.mark.parametrize(
    ("axes", "sides", "swap", "said"),
    [
        ("auto", None, False, "needs to know the sides"),
        (None, None, True, "needs to know the sides"),
        (None, {"axes": [0], "paired": True, "swaps": []}, True, "not every mask has both"),
        (None, {"axes": [0, 2], "paired": True, "swaps": [[1, 3]]}, True, "images differ in the axis"),
        ("left_right", None, False, "axes: left_right needs to know the sides"),
        ([3], None, False, r"axes \[3\] must be of 0, 1 and 2"),
        ("updown", FREE, False, "axes updown must be"),
    ],
)
def test_what_cannot_be_mirrored(axes: object, sides: dict[str, object] | None, swap: bool, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RandomMirror(0.5, axes, sides, swap)  # type: ignore[arg-type]
