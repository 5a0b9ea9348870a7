"""Back onto the file's grid: exact where grids coincide, right where they differ."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Orientationd, Resized, Spacingd

from pipeline.inference.decision import Decision
from pipeline.inference.native_grid import SLAB, NativeGrid, _general, to_native_grid


def one_hot(label: np.ndarray, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(label).long(), classes).movedim(-1, 0).float()


def blob(shape: tuple[int, ...]) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    label = ((grid + 0.15) ** 2).sum(0) < 0.35
    return label.astype(np.uint8) + (label & (grid[0] > 0.1))


@pytest.mark.parametrize("codes", ["LPS", "ASL", "RAI", "PIR"])
def test_orientation_alone_is_exact(codes: str) -> None:
    label = blob((12, 15, 9))
    affine = np.diag([1.5, 0.8, 3.0, 1.0])
    affine[:3, 3] = (-20, 7, 100)
    data = {"label": MetaTensor(torch.from_numpy(label[None]).float(), affine=torch.from_numpy(affine))}
    turned = Orientationd("label", codes, labels=None)(data)["label"]
    back = to_native_grid(
        one_hot(turned[0].numpy().astype(np.int64), 3), np.asarray(turned.affine), affine, label.shape
    )
    assert np.array_equal(back, label)


def test_spacing_and_crop_come_back_within_a_voxel() -> None:
    label = blob((40, 44, 20))
    affine = np.diag([-1.0, 1.0, 2.5, 1.0])
    affine[:3, 3] = (30, -5, 12)
    tensor = MetaTensor(torch.from_numpy(label[None]).float(), affine=torch.from_numpy(affine))
    steps = Compose(
        [
            Orientationd("label", "RAS", labels=None),
            Spacingd("label", (0.8, 0.8, 1.3), mode="nearest"),
            CropForegroundd("label", "label", margin=2, allow_smaller=True),
        ]
    )
    prepared = steps({"label": tensor})["label"]
    back = to_native_grid(
        one_hot(prepared[0].numpy().astype(np.int64), 3), np.asarray(prepared.affine), affine, label.shape
    )
    dice = 2 * ((back > 0) & (label > 0)).sum() / ((back > 0).sum() + (label > 0).sum())
    assert dice > 0.97
    assert back[0, 0, 0] == 0  # outside of the crop


def test_two_dimensional_resize() -> None:
    label = (blob((60, 90)) > 0).astype(np.uint8)
    tensor = MetaTensor(torch.from_numpy(label[None]).float(), affine=torch.eye(4, dtype=torch.float64))
    small = Resized("label", (30, 30), mode="nearest")({"label": tensor})["label"]
    affine = np.asarray(small.affine)
    back = to_native_grid(one_hot(small[0].numpy().astype(np.int64), 2), affine, np.eye(4), label.shape)
    dice = 2 * (back & label).sum() / (back.sum() + label.sum())
    assert dice > 0.95


def test_separable_and_general_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.softmax(3 * torch.randn(3, 9, 8, 7, generator=generator), 0)
    linear = np.array([[0, 0.61, 0], [-0.73, 0, 0], [0, 0, 0.9]])
    shift = np.array([0.3, 6.7, 0.2])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, shift
    shape = (9, 13, 7)
    fast = to_native_grid(probabilities, np.eye(4), matrix, shape)
    slow = _general(probabilities, linear, shift, shape, Decision())
    place = np.einsum("ij,jxyz->ixyz", linear, np.indices(shape)) + shift[:, None, None, None]
    inside = ((place >= 0) & (place <= np.array([8, 7, 6])[:, None, None, None])).all(0)
    assert inside.mean() > 0.5
    assert (fast == slow)[inside].mean() > 0.999


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("painted", [None, (1, 2, 3)])
@pytest.mark.parametrize(
    ("scale", "shift"),
    [((0.61, -0.73, 0.9), (0.3, 6.7, 0.2)), ((1, -1, 1), (2, 7, -3)), ((2.3, 0.5, -1.7), (-2, 1, 6))],
)
def test_blocks_give_what_the_whole_gives(
    axis: int, painted: tuple[int, ...] | None, scale: tuple[float, ...], shift: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whatever rows come together, along whatever axis, and however little is interpolated at once."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.avg_pool3d(8 * torch.randn(1, 3, 11, 10, 9, generator=generator), 3, 1, 1)[0]
    decision = Decision(painted)
    probabilities = decision.probabilities(logits[None])[0]
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(scale)[[1, 0, 2]]
    matrix[:3, 3] = shift
    shape = (9, 13, 7)
    expected = to_native_grid(probabilities, np.eye(4), matrix, shape, decision)
    assert len(np.unique(expected)) > 2
    grid = NativeGrid(np.eye(4), matrix, probabilities.shape[1:], shape, decision)
    for edges in ([0, 4, 5, probabilities.shape[axis + 1]], list(range(probabilities.shape[axis + 1] + 1))):
        blocks = [(a, probabilities.narrow(axis + 1, a, b - a)) for a, b in pairwise(edges)]
        assert np.array_equal(grid.fill(blocks, axis), expected)
    monkeypatch.setitem(SLAB, "cpu", 20)
    assert np.array_equal(grid.fill([(0, probabilities)], axis), expected)


def test_a_turned_grid_from_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.softmax(3 * torch.randn(3, 9, 8, 7, generator=generator), 0)
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    expected = to_native_grid(probabilities, np.eye(4), turn, (8, 8, 7))
    blocks = [(0, probabilities[:, :, :3]), (3, probabilities[:, :, 3:])]
    assert np.array_equal(NativeGrid(np.eye(4), turn, (9, 8, 7), (8, 8, 7)).fill(blocks, 1), expected)


def test_classes_one_after_the_other() -> None:
    values = torch.rand(4, 5, 6, 7)
    assert torch.equal(Decision().of_classes(iter(values)), values.argmax(0).to(torch.uint8))
