"""One small volume is convolved by oneDNN: the same numbers, in the layout of the features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.inference.one_image import OneImageByOneDNN
from pipeline.inference.predictor import SlidingWindow, WholeImage

PYTORCHS, ONEDNNS = "aten.convolution.default", "aten.mkldnn_convolution.default"
LAST = torch.channels_last_3d
ONEDNNS_TRANSPOSED = "mkldnn._convolution_transpose_pointwise.default"


class Convolutions(TorchDispatchMode):
    """Notes the names of the convolutions that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution" in str(func):
            self.called.append(str(func))
        return func(*args, **(kwargs or {}))


def called(layer: nn.Module, image: Tensor) -> tuple[list[str], Tensor]:
    with torch.no_grad(), OneImageByOneDNN(), Convolutions() as noted:
        result: Tensor = layer(image)
    return noted.called, result


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (partial(nn.Conv3d, 4, 6, 3, padding=1), ONEDNNS),
        (partial(nn.Conv3d, 4, 6, 3, padding=(0, 1, 1), stride=(1, 2, 2), bias=False), ONEDNNS),
        (partial(nn.Conv3d, 4, 6, 3, padding=2, dilation=2, groups=2), ONEDNNS),
        (partial(nn.ConvTranspose3d, 4, 6, 2, stride=2), ONEDNNS_TRANSPOSED),
        (partial(nn.ConvTranspose3d, 4, 6, 2, stride=(1, 2, 2), padding=(0, 1, 0), bias=False), ONEDNNS_TRANSPOSED),
    ],
)
def test_the_result_is_that_of_pytorch(layer: Callable[[], nn.Module], name: str, last: bool) -> None:
    torch.manual_seed(0)
    convolution, image = layer(), torch.randn(1, 4, 6, 7, 9)
    expected = convolution(image)
    if last:
        convolution, image = convolution.to(memory_format=LAST), image.to(memory_format=LAST)
    names, result = called(convolution, image)
    assert names == [name]
    assert torch.allclose(result, expected, atol=1e-5, rtol=0)
    assert result.is_contiguous(memory_format=LAST if last else torch.contiguous_format)


def test_gradients_are_left_to_pytorch() -> None:
    layer = nn.ConvTranspose3d(4, 6, 2, stride=2)
    with OneImageByOneDNN(), Convolutions() as noted:
        layer(torch.randn(1, 4, 6, 7, 9)).sum().backward()
    assert noted.called[0] == PYTORCHS and layer.weight.grad is not None


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # of a GPU, told by the last two lines
def test_everything_else_is_left_to_pytorch() -> None:
    image = torch.randn(1, 4, 6, 7, 9)
    layer = nn.Conv3d(4, 6, 3, padding="same")
    assert called(layer, image)[0] == [PYTORCHS]
    assert called(nn.ConvTranspose3d(4, 6, 2, stride=2, output_padding=1), image)[0] == [PYTORCHS]
    assert called(nn.ConvTranspose3d(4, 6, 2, stride=2, groups=2), image)[0] == [PYTORCHS]
    layer = nn.Conv3d(4, 6, 3, padding=1)
    assert called(layer, torch.cat([image, image]))[0] == [PYTORCHS]
    assert called(layer, image[0])[0] == [PYTORCHS]
    assert called(nn.Conv2d(4, 6, 3), image[:, :, 0])[0] == [PYTORCHS]
    assert called(layer.double(), image.double())[0] == [PYTORCHS]
    with torch.autocast("cpu", torch.bfloat16):
        names, result = called(layer.float(), image)
    assert names == [PYTORCHS] and result.dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert called(layer, image)[0] == [PYTORCHS]


def test_prediction_computes_by_it() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv3d(2, 2, 1))
    window = SlidingWindow((8, 8, 8), overlap=0.5, window_batch=1, blending="gaussian", mirror_axes=[])
    with torch.inference_mode(), Convolutions() as noted:
        list(window.blocks([network], torch.randn(1, 8, 8, 12)))
    assert noted.called == [ONEDNNS] * 4
    with torch.inference_mode(), Convolutions() as noted:
        WholeImage(mirror_axes=[0])(network, torch.randn(1, 1, 8, 8, 8))
    assert noted.called == [ONEDNNS] * 4
