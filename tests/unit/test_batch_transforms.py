"""The deterministic functions behind the batch transforms, against scipy, torch and values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from pipeline.transforms import affine
from pipeline.transforms.affine import affine_linear, affine_nearest
from pipeline.transforms.blur import blur
from pipeline.transforms.contrast import change_contrast
from pipeline.transforms.gamma import correct_gamma
from pipeline.transforms.low_resolution import lower_resolution
from pipeline.transforms.matrices import affine_matrix, slice_axis
from pipeline.transforms.mirror import mirror
from pipeline.transforms.noise import add_noise
from pipeline.transforms.separable import interpolation_weights


def random_image(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def smooth_image(*shape: int) -> torch.Tensor:
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape[1:]), 2)
    return torch.from_numpy(np.broadcast_to(smooth / smooth.std(), shape).astype(np.float32).copy())


MAPS = {
    "rotation": {"rotation": (20, -30, 10)},
    "rotation and zoom": {"rotation": (20, -30, 10), "zoom": 1.3, "spacing": (1.0, 2.0, 1.5)},
    "zoom": {"zoom": 0.8},
    "zoom and shift": {"zoom": (0.8, 1.0, 1.4), "shift": (0.1, 0.0, -0.2)},
    "within the last axis": {"rotation": (0, 0, 40)},
    "within the middle axis": {"rotation": (0, 25, 0), "zoom": (1.2, 1.0, 1.2)},
    "within the first axis": {"rotation": (-60, 0, 0)},
}


@pytest.mark.parametrize("given", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_an_affine_map_equals_scipys(given: dict[str, object], padding: str) -> None:
    image = smooth_image(2, 22, 25, 28)
    image[1] *= -2
    matrix = affine_matrix((22, 25, 28), **given)  # type: ignore[arg-type]
    mode = {"border": "nearest", "zeros": "grid-constant"}[padding]
    expected = [
        ndimage.affine_transform(channel, matrix[:, :3], matrix[:, 3], order=1, mode=mode)
        for channel in image.double().numpy()
    ]
    assert np.allclose(affine_linear(image, matrix, padding), np.stack(expected), atol=2e-3)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_an_affine_map_in_the_plane_equals_scipys(padding: str) -> None:
    image = smooth_image(1, 31, 24)
    matrix = affine_matrix((31, 24), rotation=[70], zoom=1.2, shift=(0.1, -0.05), spacing=(1.0, 0.7))
    mode = {"border": "nearest", "zeros": "grid-constant"}[padding]
    expected = ndimage.affine_transform(image[0].double().numpy(), matrix[:, :2], matrix[:, 2], order=1, mode=mode)
    assert np.allclose(affine_linear(image, matrix, padding)[0], expected, atol=1e-4)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_the_fast_way_on_the_cpu_equals_torchs_sampling(padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image(1, 40, 37, 33)
    matrix = affine_matrix((40, 37, 33), rotation=(13, -8, 31), zoom=0.9)
    monkeypatch.setattr(affine, "SLAB", 7 * 37 * 33)  # several slabs, the last one short
    fast = affine_linear(image, matrix, padding)
    monkeypatch.setattr(affine, "MOST_ROWS", 0)
    assert torch.allclose(fast, affine_linear(image, matrix, padding), atol=5e-3)


@pytest.mark.parametrize("shape", [(1, 9, 9), (9, 1, 9), (9, 9, 1), (1, 1, 1)])
def test_an_axis_of_one_voxel(shape: tuple[int, ...]) -> None:
    image = torch.full((1, *shape), 3.0)
    assert torch.allclose(affine_linear(image, affine_matrix(shape, rotation=(5, 6, 7), zoom=1.1)), image, atol=1e-5)
    assert torch.allclose(blur(image, [1.0] * 3, 3.0), image, atol=1e-5)
    assert torch.allclose(lower_resolution(image, [0.5] * 3), image)


@pytest.mark.parametrize("given", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_a_label_is_taken_from_the_nearest_voxel(given: dict[str, object], padding: str) -> None:
    size = (14, 17, 12)
    label = torch.from_numpy(np.random.default_rng(2).choice([0, 1, 2, 255], size=(2, *size)).astype(np.uint8))
    matrix = affine_matrix(size, **given)  # type: ignore[arg-type]
    places = np.einsum("ij,j...->i...", matrix[:, :3], np.indices(size)) + matrix[:, 3].reshape(3, 1, 1, 1)
    clear = (np.abs(places - np.floor(places) - 0.5) > 1e-4).all(axis=0)  # not halfway between two voxels
    nearest = np.rint(places).astype(int)
    inside = np.all([(n >= 0) & (n < extent) for n, extent in zip(nearest, size, strict=True)], axis=0)
    nearest = [np.clip(n, 0, extent - 1) for n, extent in zip(nearest, size, strict=True)]
    expected = label.numpy()[:, nearest[0], nearest[1], nearest[2]] * (inside if padding == "zeros" else 1)
    moved = affine_nearest(label, matrix, padding)
    assert moved.dtype == torch.uint8
    assert np.array_equal(moved.numpy()[:, clear], expected[:, clear])


def test_a_quarter_turn_by_hand() -> None:
    image = torch.arange(9.0).view(1, 3, 3)
    turned = affine_linear(image, affine_matrix((3, 3), rotation=[90]))
    assert torch.allclose(turned, image.rot90(-1, (1, 2)), atol=1e-5)
    assert torch.equal(affine_nearest(image, affine_matrix((3, 3), rotation=[90])), image.rot90(-1, (1, 2)))


def test_zoom_two_by_hand() -> None:
    row = torch.tensor([[0.0, 10.0, 20.0, 30.0]]).view(1, 4, 1)
    # places 0.75, 1.25, 1.75, 2.25 of the input
    zoomed = affine_linear(row, affine_matrix((4, 1), zoom=2))
    assert zoomed.flatten().tolist() == [7.5, 12.5, 17.5, 22.5]


def test_interpolation_weights_by_hand() -> None:
    inside = interpolation_weights(np.array([0.25, -0.5, 2.5]), 3)
    assert inside.tolist() == [[0.75, 0.25, 0], [1, 0, 0], [0, 0, 1]]
    padded = interpolation_weights(np.array([-0.25, 2.5, 4.0]), 3, zeros=True)
    assert padded.tolist() == [[0.75, 0, 0], [0, 0, 0.5], [0, 0, 0]]


@pytest.mark.parametrize("shape", [(2, 40, 50), (1, 33, 20, 36), (1, 2, 70, 3)])
def test_blur_equals_scipys(shape: tuple[int, ...]) -> None:
    image = random_image(*shape)
    sigma = [0.5, 1.0, 0.7][: len(shape) - 1]
    expected = np.stack(
        [ndimage.gaussian_filter(channel, sigma, mode="mirror", truncate=3.0) for channel in image.double().numpy()]
    )
    assert np.allclose(blur(image, sigma, 3.0), expected, atol=1e-5)
    assert torch.equal(blur(image, [0.0] * len(sigma), 3.0), image)


@pytest.mark.parametrize(("shape", "mode"), [((2, 41, 50), "bilinear"), ((1, 36, 25, 40), "trilinear")])
@pytest.mark.parametrize("scale", [0.5, 0.61, 0.97])
def test_lower_resolution_equals_torchs(shape: tuple[int, ...], mode: str, scale: float) -> None:
    image = random_image(*shape)
    down = functional.interpolate(image[None], [round(n * scale) for n in shape[1:]], mode="nearest-exact")
    expected = functional.interpolate(down, shape[1:], mode=mode, align_corners=False)[0]
    assert torch.allclose(lower_resolution(image, [scale] * (len(shape) - 1)), expected, atol=1e-5)


def test_lower_resolution_by_hand() -> None:
    row = torch.tensor([0.0, 4.0, 8.0, 100.0]).view(1, 4, 1)
    # the voxels 1 and 3 remain; the four places are -0.25, 0.25, 0.75 and 1.25 of the two
    assert lower_resolution(row, [0.5, 1.0]).flatten().tolist() == [4.0, 28.0, 76.0, 100.0]


def test_contrast_by_hand() -> None:
    channel = torch.tensor([0.0, 2.0, 4.0, 10.0])
    change_contrast(channel, 0.5)
    assert channel.tolist() == [2.0, 3.0, 4.0, 7.0]
    change_contrast(channel, 2.0)  # to 0, 2, 4, 10, cut to what there was
    assert channel.tolist() == [2.0, 2.0, 4.0, 7.0]


def test_gamma_by_hand() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0, 3.0])
    plain = values.clone()
    correct_gamma(plain, 2.0, invert=False, keep_statistics=False)
    assert torch.allclose(plain, torch.tensor([-1.0, -0.75, 0.0, 3.0]), atol=1e-5)
    inverted = values.clone()
    correct_gamma(inverted, 2.0, invert=True, keep_statistics=False)
    # from the top: 1, 9/16, 1/4, 0 of the range of 4 remain
    assert torch.allclose(inverted, torch.tensor([-1.0, 0.75, 2.0, 3.0]), atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("gamma", [0.7, 1.5])
def test_gamma_keeps_order_mean_and_standard_deviation(gamma: float, invert: bool, offset: float) -> None:
    image = random_image(30, 31, 32) * 50 + offset
    changed = image.clone()
    correct_gamma(changed, gamma, invert=invert, keep_statistics=True)
    assert changed.double().mean().item() == pytest.approx(image.double().mean().item(), abs=0.02)
    assert changed.double().std().item() == pytest.approx(image.double().std().item(), rel=1e-3)
    assert not torch.allclose(changed, image, atol=1)
    order = image.flatten().argsort()
    assert (changed.flatten()[order].diff() > -1e-2).all()


@pytest.mark.parametrize("keep", [False, True])
def test_gamma_leaves_a_constant_image(keep: bool) -> None:
    channel = torch.full((5, 5), 7.0)
    correct_gamma(channel, 0.7, invert=keep, keep_statistics=keep)
    assert torch.allclose(channel, torch.full((5, 5), 7.0), atol=1e-5)


def test_noise_has_the_standard_deviation_that_is_asked_for() -> None:
    image = torch.ones(1, 40, 40, 40)
    add_noise(image, 0.3, seed=5)
    assert image.mean().item() == pytest.approx(1, abs=0.005)
    assert image.std().item() == pytest.approx(0.3, rel=0.01)
    again = torch.ones(1, 40, 40, 40)
    add_noise(again, 0.3, seed=5)
    assert torch.equal(image, again)


def test_mirror_reverses_axes() -> None:
    image = torch.arange(24.0).view(1, 2, 3, 4).clone()
    mirror(image, [0, 2])
    assert torch.equal(image, torch.arange(24.0).view(1, 2, 3, 4).flip(1, 3))


def test_the_axis_across_thick_slices() -> None:
    assert slice_axis((1.0, 1.0, 3.5), 3, 3.0) == 2
    assert slice_axis((5.0, 1.0, 1.2), 3, 3.0) == 0
    assert slice_axis((1.0, 1.0, 2.5), 3, 3.0) is None
    assert slice_axis((1.0, 4.0, 4.0), 3, 3.0) is None
    assert slice_axis((1.0, 9.0), 2, 3.0) is None
    assert slice_axis(None, 3, 3.0) is None
