"""Resampling axis by axis, against MONAI's on a grid of coordinates and against values known beforehand."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd as MonaiSpacingd
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from pipeline.inference.native_grid import NativeGrid
from pipeline.transforms import Spacingd


def image(shape: tuple[int, ...], affine: np.ndarray, seed: int = 0) -> MetaTensor:
    array = gaussian_filter(np.random.default_rng(seed).standard_normal((2, *shape)), (0, *[1.0] * len(shape)))
    return MetaTensor(torch.from_numpy(array.astype(np.float32)), affine=torch.from_numpy(affine))


def affine_of(spacing: tuple[float, ...], turn: bool = False, flip: bool = False) -> np.ndarray:
    dims = len(spacing)
    affine = np.eye(dims + 1)
    directions = np.eye(dims)
    if turn:
        directions = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()[:dims, :dims]
    if flip:
        directions = directions[:, ::-1] * np.array([1, -1, 1][:dims])
    affine[:dims, :dims] = directions * np.array(spacing)
    affine[:dims, -1] = np.arange(dims) * 7.5 - 20
    return affine


def half_way(new: MetaTensor, old: MetaTensor) -> np.ndarray:
    """Voxels that lie half way between two of the old ones along an axis: either is the nearest."""
    places = np.indices(new.shape[1:]).reshape(new.ndim - 1, -1)
    step = np.linalg.solve(old.affine.numpy(), new.affine.numpy())
    found = step[:-1, :-1] @ places + step[:-1, -1:]
    return (np.abs(found % 1 - 0.5) < 1e-6).any(axis=0).reshape(new.shape[1:])


@pytest.mark.parametrize(
    ("shape", "spacing", "pixdim"),
    [
        ((31, 26, 19), (0.7, 0.9, 2.5), (1.1, 0.6, 1.3)),
        ((12, 33, 8), (3.0, 1.0, 4.0), (1.7, 2.3, 1.1)),
        ((21, 17, 1), (1.0, 1.2, 5.0), (0.7, 2.0, 5.0)),
        ((40, 23), (0.4, 1.1), (0.9, 0.5)),
    ],
)
@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_same_grid_and_values_as_monai(
    shape: tuple[int, ...], spacing: tuple[float, ...], pixdim: tuple[float, ...], turn: bool, flip: bool
) -> None:
    if turn and len(shape) == 2:
        pytest.skip("a plane does not turn out of itself")
    data = {"image": image(shape, affine_of(spacing, turn, flip))}
    data["label"] = image(shape, affine_of(spacing, turn, flip), 1).round()
    mode = ["bilinear", "nearest"]
    ours = Spacingd(["image", "label"], pixdim, mode)(data)
    theirs = MonaiSpacingd(["image", "label"], pixdim, mode=mode)(data)
    for key in ("image", "label"):
        assert ours[key].shape == theirs[key].shape and ours[key].dtype == torch.float32
        assert torch.allclose(ours[key].affine, theirs[key].affine, atol=1e-12)
    assert torch.allclose(ours["image"].as_tensor(), theirs["image"].as_tensor(), atol=2e-6)
    clear = ~half_way(ours["label"], data["label"])
    assert clear.mean() > 0.5
    assert np.array_equal(ours["label"].numpy()[:, clear], theirs["label"].numpy()[:, clear])
    found = np.linalg.norm(ours["image"].affine.numpy()[:-1, :-1], axis=0)
    assert np.allclose(found, pixdim)


def test_values_known_beforehand() -> None:
    line = MetaTensor(torch.tensor([[[0.0, 10.0, 30.0]]]), affine=torch.diag(torch.tensor([1.0, 2.0, 1.0]).double()))
    found = Spacingd(["image"], (1.0, 1.0))({"image": line})["image"]
    assert found.shape == (1, 1, 5)
    assert found.as_tensor().flatten().tolist() == [0, 5, 10, 20, 30]


def test_axes_that_are_not_at_right_angles_stay_so() -> None:
    """A gantry tilted by 20 degrees: the voxels of an upright one, and the way back is along the axes."""
    tilt = np.radians(20)
    upright = affine_of((0.5, 0.5, 5.0))
    tilted = upright.copy()
    tilted[1, 2] = 5 * np.tan(tilt)
    stack = image((24, 20, 9), upright)
    wanted = Spacingd(["image"], (1.0, 0.7, 2.5))({"image": stack})["image"]
    given = {"image": MetaTensor(stack.as_tensor(), affine=torch.from_numpy(tilted))}
    found = Spacingd(["image"], (1.0, 0.7, 2.5 / np.cos(tilt)))(given)["image"]
    assert found.shape == wanted.shape
    assert torch.allclose(found.as_tensor(), wanted.as_tensor(), atol=1e-5)
    assert np.allclose(np.linalg.norm(found.affine.numpy()[:3, :3], axis=0), (1.0, 0.7, 2.5 / np.cos(tilt)))
    masks = []
    for new, affine in ((wanted, upright), (found, tilted)):
        grid = NativeGrid(new.affine.numpy(), affine, new.shape[1:], stack.shape[1:])
        assert grid.lines is not None
        both = torch.stack([0.5 - new.as_tensor()[0], 0.5 + new.as_tensor()[0]])
        masks.append(grid.fill([(0, both)], axis=0))
    assert 0.2 < masks[0].mean() < 0.8
    assert np.array_equal(*masks)


def test_an_image_of_that_spacing_is_left_as_it_is() -> None:
    data = image((9, 8, 7), affine_of((1.5, 1.5, 2.0)))
    assert torch.equal(Spacingd(["image"], (1.5, 1.5, 2.0))({"image": data})["image"], data)


def test_absent_keys_and_mistakes() -> None:
    data = {"image": image((9, 8, 7), affine_of((1.5, 1.5, 2.0)))}
    assert set(Spacingd(["image", "label"], (1, 1, 1), allow_missing_keys=True)(data)) == {"image"}
    with pytest.raises(KeyError):
        Spacingd(["image", "label"], (1, 1, 1))(data)
    with pytest.raises(ValueError, match="3 axes"):
        Spacingd(["image"], (1, 1))(data)
    with pytest.raises(ValueError, match="positive"):
        Spacingd(["image"], (1, 0, 1))
    with pytest.raises(ValueError, match="nearest"):
        Spacingd(["image"], (1, 1, 1), mode="cubic")
    with pytest.raises(ValueError, match="affine"):
        Spacingd(["image"], (1, 1, 1))({"image": torch.zeros(1, 4, 4, 4)})
