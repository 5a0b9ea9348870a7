"""Fused layers against the plain ones: norms with their activation, slopes, batch norms of few channels, layouts."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.engine import Engine, can_fuse, fuse_norms, use_engine
from pipeline.networks.layout import NARROW, layout
from pipeline.networks.learned_slope import LearnedSlope
from pipeline.networks.narrow_batch_norm import NarrowBatchNorm
from pipeline.networks.norm_activation import NormActivation
from pipeline.tasks.base import Task

FAST = Engine("fused", "channels_last")
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def norm_of(channels: int, dims: int, affine: bool = True) -> Any:
    norm = (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(channels, affine=affine)
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, channels))
            norm.bias.copy_(torch.linspace(-1, 1, channels))
    return norm


def images(dims: int, last: bool, dtype: torch.dtype, channels: int = 5) -> Tensor:
    torch.manual_seed(0)
    image = (torch.randn(2, channels, *(7, 6, 9)[:dims]) * 3 + 2).to(dtype)
    return image.contiguous(memory_format=LAST[dims]) if last else image


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [5, NARROW], ids=["narrow", "wide"])
@pytest.mark.parametrize("affine", [True, False])
def test_fused_norm_is_the_two_layers(dims: int, last: bool, slope: float, affine: bool, channels: int) -> None:
    norm = norm_of(channels, dims, affine)
    fused = NormActivation(norm, slope)
    first, second = (images(dims, last, torch.float32, channels).requires_grad_() for _ in range(2))
    expected = functional.leaky_relu(norm(first), slope)
    found = fused(second)
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.stride() == second.stride()
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    by_hand = {name: parameter.grad for name, parameter in norm.named_parameters()}
    norm.zero_grad(set_to_none=True)
    (found * weight).sum().backward()
    assert first.grad is not None and second.grad is not None
    assert torch.allclose(second.grad, first.grad, atol=1e-5)
    assert second.grad.stride() == second.stride()
    for name, parameter in fused.named_parameters():  # shared with the norm
        assert parameter.grad is not None and torch.allclose(parameter.grad, by_hand[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("channels", [5, NARROW], ids=["narrow", "wide"])
def test_gradients_of_the_fused_norm_in_float64(last: bool, slope: float, channels: int) -> None:
    norm = norm_of(channels, 3).double()
    fused = NormActivation(norm, slope)
    image = images(3, last, torch.float64, channels)[:, :, :3, :3, :2].clone(memory_format=torch.preserve_format)

    def compute(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(fused, {"weight": weight, "bias": bias}, (features,))

    given = (image, *(parameter.detach().clone() for parameter in norm.parameters()))
    assert torch.autograd.gradcheck(compute, [tensor.requires_grad_() for tensor in given])


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [5, NARROW], ids=["narrow", "wide"])
def test_fused_norm_in_bfloat16_rounds_once(last: bool, channels: int) -> None:
    norm = norm_of(channels, 3)
    image = images(3, last, torch.bfloat16, channels)
    exact = functional.leaky_relu(norm(image.float()), 0.01)
    found = NormActivation(norm, 0.01)(image)
    assert found.dtype == torch.bfloat16
    # The activation sees the rounded result of the norm: two roundings of 8 bits.
    assert torch.allclose(found.float(), exact, rtol=2**-7, atol=2**-8)


def test_fused_norm_refuses_one_voxel_like_the_norm() -> None:
    with pytest.raises(ValueError, match="one voxel"):
        NormActivation(norm_of(5, 2), 0.01)(torch.randn(2, 5, 1, 1))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (2, 3, 7, 5)])
@pytest.mark.parametrize("last", [False, True])
def test_a_learned_slope_is_a_prelu(shape: tuple[int, ...], last: bool) -> None:
    torch.manual_seed(0)
    stock = nn.Sequential(nn.PReLU(init=0.3))
    fused = copy.deepcopy(stock)
    assert can_fuse(fused)
    fuse_norms(fused)
    assert isinstance(fused[0], LearnedSlope)
    assert fused.state_dict().keys() == stock.state_dict().keys()
    kind = {4: torch.channels_last, 5: torch.channels_last_3d}[len(shape)] if last else torch.contiguous_format
    features, wanted = torch.randn(shape).contiguous(memory_format=kind), torch.randn(shape)
    results = []
    for network in (stock, fused):
        x = features.clone(memory_format=torch.preserve_format).requires_grad_()
        y = network(x)
        (y * wanted).sum().backward()
        results.append((y, x.grad, network[0].weight.grad))
    for first, second in zip(*results, strict=True):
        assert torch.allclose(first, second, atol=1e-5)
    assert results[1][0].is_contiguous(memory_format=kind)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [3, NARROW], ids=["narrow", "wide"])
def test_a_narrow_batch_norm_is_the_plain_layer(dims: int, last: bool, channels: int) -> None:
    stock = nn.Sequential((nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(channels, momentum=0.3))
    nn.init.uniform_(stock[0].weight, 0.5, 2.0)
    fused = copy.deepcopy(stock)
    assert can_fuse(fused) is (channels < NARROW)
    fuse_norms(fused)
    assert isinstance(fused[0], NarrowBatchNorm) is (channels < NARROW)
    features = images(dims, last, torch.float32, channels)
    wanted = torch.randn(features.shape)
    results = []
    for network in (stock, fused):
        x = features.clone(memory_format=torch.preserve_format).requires_grad_()
        y = network(x)
        (y * wanted).sum().backward()
        results.append((y, x.grad, network[0].weight.grad, network[0].bias.grad, network.eval()(features)))
    for first, second in zip(*results, strict=True):
        assert torch.allclose(first, second, atol=1e-5)
    assert {layout(results[1][i]) for i in (0, 1, 4)} == {layout(features)}
    assert stock.state_dict().keys() == fused.state_dict().keys()
    for name, value in stock.state_dict().items():  # the statistics for prediction, and how many batches they have seen
        assert torch.allclose(fused.state_dict()[name], value, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_features_of_a_single_channel_are_laid_out_channels_last_by_the_first_convolution(dims: int) -> None:
    convolution = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 8, 3, padding=1)
    stock, fast = nn.Sequential(convolution), use_engine(nn.Sequential(copy.deepcopy(convolution)), FAST, training=True)
    first, second = (torch.randn(2, 1, *(7, 6, 9)[:dims], generator=seeded(0)).requires_grad_() for _ in range(2))
    expected, found = stock(first), fast(second)
    assert layout(expected) == torch.contiguous_format and layout(found) == LAST[dims]
    assert torch.allclose(found, expected, atol=1e-6)
    wanted = torch.randn(expected.shape)
    for output in (expected, found):
        (output * wanted).sum().backward()
    assert first.grad is not None and second.grad is not None
    assert torch.allclose(first.grad, second.grad, atol=1e-5)
    for mine, plain in zip(fast.parameters(), stock.parameters(), strict=True):
        assert mine.grad is not None and plain.grad is not None
        assert torch.allclose(mine.grad, plain.grad, atol=1e-4)


def test_the_first_convolution_takes_a_window_of_an_image_and_a_keyword() -> None:
    fast = use_engine(nn.Sequential(nn.Conv3d(1, 8, 3)), FAST, training=False)
    image = torch.randn(2, 1, 9, 9, 9)
    found = fast(image[:, :, 1:8, 2:7, 3:9])
    assert layout(found) == LAST[3]
    assert torch.allclose(found, fast[0](input=image[:, :, 1:8, 2:7, 3:9]), atol=1e-6)


def test_a_batch_norm_without_a_bias_keeps_none() -> None:
    norm = nn.BatchNorm3d(3)
    norm.register_parameter("bias", None)
    network = nn.Sequential(norm)
    fuse_norms(network)
    assert isinstance(network[0], NarrowBatchNorm) and list(network.state_dict()) == [
        "0.weight", "0.running_mean", "0.running_var", "0.num_batches_tracked"]  # fmt: skip


def test_a_gradient_in_another_layout_is_laid_out_as_its_weight() -> None:
    """Of a batch computed in parts: one small volume alone gives its gradient contiguous."""
    task = Task(use_engine(nn.Sequential(nn.Conv3d(2, 4, 3)), FAST, training=True), nn.Identity(), None, seed=0)  # type: ignore[arg-type]
    task._trainer = SimpleNamespace(accumulate_grad_batches=1)  # type: ignore[assignment]
    weights = list(task.network.parameters())
    gradients = [torch.randn(weight.shape) for weight in weights]
    task._gradients = [gradient.clone() for gradient in gradients]
    task.backward(torch.zeros(()))
    for weight, gradient in zip(weights, gradients, strict=True):
        assert weight.grad is not None and torch.equal(weight.grad, gradient)
        assert weight.grad.stride() == weight.stride()
