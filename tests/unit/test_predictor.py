"""Sliding windows and flips against results known beforehand, and against MONAI's."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from monai.inferers import sliding_window_inference

from pipeline.errors import UserError
from pipeline.inference.predictor import SlidingWindow, WholeImage, all_flips, ensemble
from pipeline.inference.sums import Layout, Sums, choose_type


def test_flips() -> None:
    assert all_flips([]) == [[]]
    assert all_flips([0, 2]) == [[], [2], [4], [2, 4]]


def logits_of(window: SlidingWindow, network: Any, image: torch.Tensor) -> torch.Tensor:
    """Logits of a whole image (1, C, *spatial), its blocks put together."""
    blocks = [block for _, block in window.blocks([network], image[0])]
    return torch.cat(blocks, dim=window.axis(image.shape[2:]) + 1)[None]


def pointwise(image: torch.Tensor) -> torch.Tensor:
    return torch.cat([image, -2 * image], dim=1)


@pytest.mark.parametrize("shape", [(13, 17), (9, 12, 11), (5, 4, 3)])
@pytest.mark.parametrize("mirror", [[], [0, 1]])
def test_windows_of_a_pointwise_network_change_nothing(shape: tuple[int, ...], mirror: list[int]) -> None:
    image = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    window = SlidingWindow((6,) * len(shape), overlap=0.5, window_batch=2, blending="gaussian", mirror_axes=mirror)
    assert torch.allclose(logits_of(window, pointwise, image), pointwise(image), atol=1e-5)


def test_mirrored_logits_are_averaged() -> None:
    def position(image: torch.Tensor) -> torch.Tensor:
        return torch.arange(4.0).repeat(len(image), 1, 3, 1)

    window = SlidingWindow((3, 4), overlap=0.0, window_batch=1, blending="constant", mirror_axes=[1])
    assert torch.allclose(logits_of(window, position, torch.zeros(1, 1, 3, 4)), torch.full((1, 1, 3, 4), 1.5))

    def corner(image: torch.Tensor) -> torch.Tensor:
        return image[:, :, 0, 0]

    image = torch.tensor([[[[1.0, 3.0], [5.0, 11.0]]]])
    assert float(WholeImage(mirror_axes=[0, 1])(corner, image)) == pytest.approx(5.0)
    assert float(WholeImage(mirror_axes=[])(corner, image)) == pytest.approx(1.0)


def test_an_axis_of_one_voxel_is_not_flipped() -> None:
    given: dict[str, Any] = {"overlap": 0.5, "window_batch": 1, "blending": "gaussian"}
    assert SlidingWindow((1, 8, 8), mirror_axes=[0, 1, 2], **given).flips == [[], [3], [4], [3, 4]]
    calls: list[int] = []

    def counted(image: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return image.flatten(1)[:, :2]

    WholeImage(mirror_axes=[0, 1, 2])(counted, torch.zeros(1, 1, 4, 4, 1))  # type: ignore[arg-type]
    assert len(calls) == 4


def test_an_ensemble_is_the_mean_of_probabilities() -> None:
    def network(logits: list[float]) -> object:
        return lambda image: torch.tensor([logits])

    networks = [network([0.0, 0.0]), network([0.0, 1.0986123])]
    mean = ensemble(networks, WholeImage(mirror_axes=[]), torch.zeros(1, 1, 2, 2), bf16=False)  # type: ignore[arg-type]
    assert torch.allclose(mean, torch.tensor([[0.375, 0.625]]))


def network_of(dims: int, classes: int = 3) -> torch.nn.Module:
    """Looks at neighbours and at the place within the window, as networks do near borders."""
    torch.manual_seed(0)
    convolution = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2]
    return torch.nn.Sequential(
        convolution(2, 5, 3, padding=1), torch.nn.ReLU(), convolution(5, classes, 3, padding=1)
    ).eval()


def monai(
    network: Any, image: torch.Tensor, patch: tuple[int, ...], overlap: float, blending: str, **given: Any
) -> Any:
    return sliding_window_inference(
        image, patch, 1, network, overlap=overlap, mode=blending, sigma_scale=0.125, **given
    )


CASES = {
    "volume": ((2, 20, 23, 31), (8, 8, 16), 0.5),
    "one window along an axis": ((2, 8, 30, 17), (8, 16, 16), 0.5),
    "smaller than the window": ((2, 5, 19, 7), (8, 8, 10), 0.5),
    "odd steps": ((2, 19, 25, 18), (7, 9, 5), 0.6),
    "no overlap": ((2, 19, 25, 18), (8, 8, 8), 0.0),
    "dense": ((2, 9, 10, 12), (6, 6, 6), 0.9),
    "plane": ((2, 37, 41), (16, 12), 0.5),
    "small plane": ((2, 7, 41), (16, 16), 0.25),
}


@pytest.mark.parametrize(("shape", "patch", "overlap"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("blending", ["gaussian", "constant"])
@torch.no_grad()
def test_windows_equal_monais(shape: tuple[int, ...], patch: tuple[int, ...], overlap: float, blending: str) -> None:
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    network = network_of(len(patch))
    expected = monai(network, image, patch, overlap, blending)
    for together in (1, 3):
        window = SlidingWindow(patch, overlap=overlap, window_batch=together, blending=blending, mirror_axes=[])
        assert torch.allclose(logits_of(window, network, image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("together", "images"), [(1, {1}), (2, {2}), (3, {3, 1}), (9, {8})])
@torch.no_grad()
def test_flips_are_those_of_each_window(together: int, images: set[int]) -> None:
    given: set[int] = set()

    def counted(windows: torch.Tensor) -> torch.Tensor:
        given.add(len(windows))
        return network(windows)  # type: ignore[no-any-return]

    image = torch.randn(1, 2, 20, 23, 31, generator=torch.Generator().manual_seed(1))
    network = network_of(3)

    def flipped(windows: torch.Tensor) -> torch.Tensor:
        flips = [dims for n in range(3) for dims in combinations((2, 4), n)]
        return sum(network(windows.flip(dims)).flip(dims) for dims in flips) / len(flips)  # type: ignore[return-value]

    expected = monai(flipped, image, (8, 8, 16), 0.5, "gaussian")
    window = SlidingWindow((8, 8, 16), overlap=0.5, window_batch=together, blending="gaussian", mirror_axes=[0, 2])
    assert torch.allclose(logits_of(window, counted, image), expected, atol=1e-5, rtol=0)
    assert given == images


@pytest.mark.parametrize(("patch", "together"), [((64, 64, 64), 2), ((100, 100, 100), 2), ((128, 128, 64), 1)])
def test_small_windows_go_in_pairs(patch: tuple[int, ...], together: int) -> None:
    given: dict[str, Any] = {"overlap": 0.5, "blending": "gaussian", "mirror_axes": []}
    assert SlidingWindow(patch, window_batch="auto", **given).together == together
    assert SlidingWindow(patch, window_batch=4, **given).together == 4


@torch.no_grad()
def test_flips_leave_the_image_as_it_is() -> None:
    image = torch.randn(1, 1, 12, 12)
    before = image.clone()
    window = SlidingWindow((12, 12), overlap=0.5, window_batch=1, blending="gaussian", mirror_axes=[0, 1])
    assert torch.allclose(logits_of(window, lambda part: part, image), before, atol=1e-6)
    assert torch.equal(image, before)


@pytest.mark.parametrize("shape", [(2, 40, 12, 12), (2, 12, 12, 40), (2, 5, 30, 9)])
@torch.no_grad()
def test_blocks_are_the_mean_of_the_networks_probabilities(shape: tuple[int, ...]) -> None:
    image = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    networks = [network_of(3), lambda part: -network_of(3)(part)]
    window = SlidingWindow((8, 8, 8), overlap=0.5, window_batch=1, blending="gaussian", mirror_axes=[])
    axis = window.axis(shape[1:])
    assert shape[axis + 1] == max(shape[1:])
    single = [torch.softmax(logits_of(window, network, image[None]), 1)[0] for network in networks]
    expected = torch.stack(single).mean(0)
    end = 0
    for start, block in window.blocks(networks, image, lambda logits: torch.softmax(logits, 1)):
        assert start == end and block.shape[axis + 1] == 1
        end += block.shape[axis + 1]
        assert torch.allclose(block, expected.narrow(axis + 1, start, end - start), atol=1e-6)
    assert end == shape[axis + 1]


@torch.no_grad()
def test_half_precision_is_close() -> None:
    image = torch.randn(1, 2, 30, 12, 12, generator=torch.Generator().manual_seed(1))
    given: dict[str, Any] = {"overlap": 0.5, "window_batch": 1, "blending": "gaussian", "mirror_axes": []}
    full, half = (
        logits_of(SlidingWindow((8, 8, 8), accumulate=kind, **given), network_of(3), image)
        for kind in ("float32", "float16")
    )
    assert 0 < (full - half).abs().max() < 5e-3


def test_memory_is_bounded() -> None:
    given: dict[str, Any] = {"overlap": 0.5, "window_batch": 1, "blending": "gaussian", "mirror_axes": []}
    window = SlidingWindow((16, 16, 16), memory_gb=1e-4, **given)
    layout = window.layout((200, 12, 32), classes=3, networks=2)
    assert layout == Layout(2, 3, (200, 16, 32), (16, 16, 16), axis=0)
    voxels = 16 * 16 * 32
    single, half = (layout.nbytes(kind) for kind in (torch.float32, torch.float16))
    # float32: block and concatenation in use, logits and probabilities of a network, the mean of those before it
    given_on = 16 * 32 * 3 * 4 * 5
    assert (single, half) == (voxels * (2 * 3 * 4 + 4) + given_on, voxels * (2 * 3 * 2 + 4) + given_on)
    sums = Sums(layout, torch.float16, torch.device("cpu"))
    assert sum(total.nbytes for total in sums.logits) == voxels * 2 * 3 * 2
    assert choose_type(layout, "auto", None) == choose_type(layout, "auto", single / 1e9) == torch.float32
    assert choose_type(layout, "auto", half / 1e9) == torch.float16
    with pytest.raises(
        UserError, match=r"inference\.memory_gb=0\.0001: predicting 200x16x32 voxels, 3 classes"
    ) as told:
        window.require_memory((200, 12, 32), 3, networks=2)
    assert "raise inference.memory_gb" in told.value.remedies[0]
    with pytest.raises(UserError, match=r"needs 0\.00 GB"):
        choose_type(layout, "float32", half / 1e9)
    assert math.isclose(
        Layout(1, 118, (1000, 512, 512), (128, 128, 128), 0).nbytes(torch.float32) / 1e9, 19.93, rel_tol=0.01
    )


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8])
def test_rows_move_up(rows: int) -> None:
    sums = Sums(Layout(1, 2, (30, 6), (8, 6), 0), torch.float32, torch.device("cpu"))
    sums.logits[0].copy_(torch.arange(96.0).view(2, 8, 6))
    expected = torch.zeros(2, 8, 6)
    expected[:, : 8 - rows] = torch.arange(96.0).view(2, 8, 6)[:, rows:]
    sums.move(rows)
    assert torch.equal(sums.logits[0], expected) and sums.start == rows


def test_an_output_of_another_size_is_refused() -> None:
    window = SlidingWindow((8, 8), overlap=0.5, window_batch=1, blending="gaussian", mirror_axes=[])
    with pytest.raises(ValueError, match=r"windows of \(8, 8\) voxels gave \(4, 4\)"):
        logits_of(window, lambda part: part[..., ::2, ::2], torch.zeros(1, 1, 12, 12))
