"""Every network of conf/network builds and learns in 2D and 3D at odd sizes; ours is checked by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import Tensor, nn

from pipeline.networks import CNN, PadToMultiple, UNet
from pipeline.networks.grid import fold_grid, unfold_grid
from pipeline.networks.topology import plan_kernels, plan_strides, without_full_resolution

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "network").glob("*.yaml"))
CLASSIFIERS = {"cnn", "densenet", "efficientnet", "resnet", "vit"}


def load(name: str, size: tuple[int, ...], **changes: Any) -> nn.Module:
    """The network of a config for two channels and three classes."""
    derived = {
        "spatial_dims": len(size),
        "in_channels": 2,
        "out_channels": 3,
        "patch_size": list(size),
        "spacing": [1.0] * len(size),
    }
    path = next(path for path in CONFIGS if path.stem == name)
    config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(config, dict)
    tree = OmegaConf.create({"derived": derived, "network": {**config, **changes}})
    torch.manual_seed(0)
    network: nn.Module = hydra.utils.instantiate(OmegaConf.to_container(tree, resolve=True)["network"])
    return network


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("size", [(21, 30), (17, 22, 5)], ids=["2d", "3d"])
@pytest.mark.parametrize("name", [path.stem for path in CONFIGS])
def test_every_config_maps_odd_sizes_and_learns(name: str, size: tuple[int, ...]) -> None:
    network = load(name, size)
    image = torch.randn(2, 2, *size)
    outputs = network(image)
    outputs = outputs if isinstance(outputs, list) else [outputs]  # deep supervision: several
    logits = outputs[0]
    assert logits.shape == ((2, 3) if name in CLASSIFIERS else (2, 3, *size))
    sum(output.square().mean() for output in outputs).backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    learning = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    missing = [name for name, parameter in learning if parameter.grad is None]
    assert missing == []  # parameters without a gradient stop distributed training
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("name", [path.stem for path in CONFIGS if path.stem not in CLASSIFIERS])
def test_segmentation_networks_take_other_sizes_than_the_patch(name: str) -> None:
    network = load(name, (32, 32)).eval()
    with torch.no_grad():
        for size in ((19, 33), (5, 9)):
            assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(28, 28), (33, 20, 4)])
def test_small_images_can_be_classified(size: tuple[int, ...]) -> None:
    for name in sorted(CLASSIFIERS - {"densenet", "efficientnet"}):
        assert load(name, size)(torch.randn(2, 2, *size)).shape == (2, 3)


# --- topology ---


def test_topology_of_nnunet_for_hippocampus() -> None:
    strides = plan_strides((40, 56, 40), (1.0, 1.0, 1.0), 9)
    assert strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))  # 40 20 10 5: no axis of 8 but 56 28 14 7
    assert plan_kernels((1.0, 1.0, 1.0), strides) == ((3, 3, 3),) * 4


def test_topology_of_nnunet_for_prostate() -> None:
    spacing = (3.6, 0.62, 0.62)
    strides = plan_strides((20, 320, 256), spacing, 9)
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert plan_kernels(spacing, strides) == ((1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 5)


def test_topology_keeps_the_bounds() -> None:
    assert plan_strides((256, 256), None, 3) == ((1, 1), (2, 2), (2, 2))
    assert plan_strides((7, 7), None, 6) == ((1, 1),)
    assert plan_strides((11, 6), None, 6) == ((1, 1),)  # one axis alone is halved from 12 on
    assert plan_strides((12, 6), None, 6) == ((1, 1), (2, 1))
    assert without_full_resolution(((1, 1), (2, 2))) == ((2, 2),)
    assert without_full_resolution(((1, 1),)) == ((1, 1),)
    with pytest.raises(ValueError, match="2 axes"):
        plan_strides((8, 8), (1.0,), 3)


# --- folding ---


@pytest.mark.parametrize(("size", "factors"), [((4, 6), (2, 2)), ((4, 6, 3), (2, 2, 1)), ((2, 4, 6), (2, 2, 2))])
def test_folding_is_undone(size: tuple[int, ...], factors: tuple[int, ...]) -> None:
    image = torch.randn(2, 3, *size)
    assert torch.equal(unfold_grid(fold_grid(image, factors), factors), image)
    assert torch.equal(fold_grid(image, (1,) * len(size)), image)


def test_folding_gathers_cells() -> None:
    image = torch.arange(15.0).reshape(1, 1, 3, 5)
    folded = fold_grid(image, (2, 2))
    assert folded.shape == (1, 4, 2, 3)
    assert folded[0, :, 0, 0].tolist() == [0, 1, 5, 6]
    assert folded[0, :, 1, 2].tolist() == [14, 14, 14, 14]  # filled up with the last voxel
    assert torch.equal(
        folded[0].flatten(1),
        nn.functional.pixel_unshuffle(nn.functional.pad(image, (0, 1, 0, 1), mode="replicate"), 2)[0].flatten(1),
    )


# --- our U-Net ---


def unet(size: tuple[int, ...] = (32, 32), **changes: Any) -> UNet:
    network = load("unet", size, **changes)
    assert isinstance(network, UNet)
    return network


def test_unet_parameters_by_hand() -> None:
    plain: dict[str, Any] = {"residual": False, "full_resolution": True, "depth": 2, "width": 4, "decoder_convs": 2}
    # Convolutions have no bias before a norm; each norm has two numbers a feature.
    encoder = (2 * 4 * 9 + 8) + (4 * 4 * 9 + 8) + (4 * 8 * 9 + 16) + (8 * 8 * 9 + 16)
    decoder = (8 * 4 * 4 + 4) + (8 * 4 * 9 + 8) + (4 * 4 * 9 + 8)
    assert parameters(unet(**plain)) == encoder + decoder + (4 * 3 + 3)
    # Folded: 4 x 2 input channels, 4 x 3 logits. Residual: a path with bias around each of the three stages.
    folded = encoder + decoder + 3 * 2 * 4 * 9 + (4 * 12 + 12)
    paths = (8 * 4 + 4) + (4 * 8 * 9 + 8) + (8 * 4 + 4)
    assert parameters(unet(**plain | {"full_resolution": False})) == folded
    assert parameters(unet(**plain | {"full_resolution": False, "residual": True})) == folded + paths


def test_unet_follows_the_patch() -> None:
    network = unet((40, 56, 40))
    assert network.strides == ((2, 2, 2),) * 3
    assert unet((40, 56, 40), full_resolution=True).strides == ((1, 1, 1), *[(2, 2, 2)] * 3)
    anisotropic = unet((64, 64, 16), spacing=[0.7, 0.7, 2.5])
    assert anisotropic.strides == ((2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1))  # to 4 voxels an axis
    assert anisotropic.kernel_sizes == ((3, 3, 3),) * 4
    assert unet((256, 256)).strides == ((2, 2),) * 6
    assert unet((5, 6)).strides == ((1, 1),)


def test_unet_takes_explicit_topologies() -> None:
    changes: dict[str, Any] = {"strides": [1, [2, 2, 1], 2], "kernel_sizes": [[3, 3, 1], 3, 3], "convs": [1, 2, 2]}
    folded = unet((32, 32, 8), **changes)
    assert (folded.strides, folded.kernel_sizes) == (((2, 2, 1), (2, 2, 2)), ((3, 3, 3),) * 2)
    changes["full_resolution"] = True
    network = unet((32, 32, 8), **changes)
    assert network.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2))
    assert network.kernel_sizes == ((3, 3, 1), (3, 3, 3), (3, 3, 3))
    assert network(torch.randn(1, 2, 9, 11, 5)).shape == (1, 3, 9, 11, 5)
    assert unet((32, 32, 8), strides=[[2, 2, 1], 2])(torch.randn(1, 2, 9, 11, 5)).shape == (1, 3, 9, 11, 5)
    with pytest.raises(InstantiationException, match="kernel_sizes has 2 entries, strides 3"):
        unet((32, 32, 8), **changes | {"kernel_sizes": [3, 3]})
    assert parameters(unet((32, 32, 8), **changes | {"convs": [1, 2]})) == parameters(network)
    with pytest.raises(InstantiationException, match="numbers from one on"):
        unet((32, 32, 8), **changes | {"convs": []})
    with pytest.raises(InstantiationException, match="3 numbers a stage"):
        unet((32, 32, 8), strides=[1, [2, 2]])
    with pytest.raises(InstantiationException, match="neither auto"):
        unet((32, 32, 8), strides="all")


def test_unet_skips_carry_detail() -> None:
    """With the bottleneck silenced a voxel still reaches its own output, and only its neighbourhood."""
    network = unet((32, 32), depth=2, norm="none", residual=False, full_resolution=True).eval()
    with torch.no_grad():
        network.upsamplings[0].weight.zero_()
        image = torch.randn(1, 2, 32, 32)
        changed = image.clone()
        changed[0, 0, 16, 16] += 1
        difference = (network(changed) - network(image)).abs().sum(1)[0]
    reach = 2 + 1  # two convolutions in the encoder stage, one in the decoder stage
    near = difference[16 - reach : 17 + reach, 16 - reach : 17 + reach]
    assert difference[16, 16] > 0
    assert difference.sum() == pytest.approx(float(near.sum()))


def test_unet_bottleneck_carries_context() -> None:
    network = unet((32, 32), norm="none").eval()
    image = torch.randn(1, 2, 32, 32)
    changed = image.clone()
    changed[0, 0, 0, 0] += 1
    with torch.no_grad():
        assert (network(changed) - network(image)).abs()[0, :, 12, 12].sum() > 0


def test_unet_deep_supervision() -> None:
    network = unet((32, 32), deep_supervision=True, depth=4)
    image = torch.randn(2, 2, 31, 32)
    outputs = network(image)
    # Stages at 16, 8 and 4 voxels; the coarsest decoder stage (8) is not scored.
    assert [tuple(output.shape[2:]) for output in outputs] == [(31, 32), (16, 16)]
    sum(output.sum() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    full = unet((64, 64), deep_supervision=True, depth=4, full_resolution=True)
    assert [output.shape[-1] for output in full(torch.randn(1, 2, 64, 64))] == [64, 32]
    assert isinstance(network.eval()(image), Tensor)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_unet_styles(activation: str, norm: str) -> None:
    network = unet((16, 16), activation=activation, norm=norm, dropout=0.2)
    network(torch.randn(2, 2, 16, 16)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)


# --- nnU-Net's two networks ---


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """Weights and biases of a convolution."""
    return inputs * outputs * kernel + outputs


def test_nnunet_parameters_by_hand() -> None:
    """Hippocampus: four stages of two convolutions with bias, each with a norm of two numbers a feature."""
    network = load("nnunet", (40, 56, 40))
    assert isinstance(network, UNet)
    assert network.strides == ((1, 1, 1), *[(2, 2, 2)] * 3) and network.kernel_sizes == ((3, 3, 3),) * 4
    widths = [32, 64, 128, 256]
    expected = 0
    for inputs, outputs in zip([2, *widths], widths, strict=False):
        expected += conv(inputs, outputs, 27) + 2 * outputs + conv(outputs, outputs, 27) + 2 * outputs
    for fine, coarse in pairwise(widths):
        expected += conv(coarse, fine, 8)  # transposed, two voxels an axis
        expected += conv(2 * fine, fine, 27) + 2 * fine + conv(fine, fine, 27) + 2 * fine
    # Logits at full and half resolution. nnU-Net also has a head at a quarter, whose loss has weight zero.
    expected += conv(32, 3, 1) + conv(64, 3, 1)
    assert parameters(network) == expected
    biases = 2 * sum(widths) + 2 * sum(widths[:-1])
    assert parameters(load("nnunet", (40, 56, 40), conv_bias=False)) == expected - biases
    assert [output.shape[2:] for output in network(torch.randn(1, 2, 16, 16, 16))] == [(16,) * 3, (8,) * 3]


def test_nnunet_resenc_parameters_by_hand() -> None:
    network = load("nnunet_resenc", (40, 56, 40))
    widths, blocks = [32, 64, 128, 256], [1, 3, 4, 6]
    expected = conv(2, 32, 27) + 2 * 32  # stem
    for i, (inputs, outputs, count) in enumerate(zip([32, *widths], widths, blocks, strict=False)):
        first = conv(inputs, outputs, 27) + 2 * outputs + conv(outputs, outputs, 27) + 2 * outputs
        further = 2 * (conv(outputs, outputs, 27) + 2 * outputs)
        shortcut = inputs * outputs + 2 * outputs if i > 0 else 0  # without bias, where the width changes
        expected += first + (count - 1) * further + shortcut
    for fine, coarse in pairwise(widths):
        expected += conv(coarse, fine, 8) + conv(2 * fine, fine, 27) + 2 * fine
    assert parameters(network) == expected + conv(32, 3, 1) + conv(64, 3, 1)


@pytest.mark.parametrize(("size", "widest", "stages"), [((512, 512), 512, 8), ((128, 128, 128), 320, 6)])
def test_nnunet_widths(size: tuple[int, ...], widest: int, stages: int) -> None:
    """Seven halvings of 512 pixels leave 4; features double from 32 to 512 in 2D and 320 in 3D."""
    with torch.device("meta"):
        network = load("nnunet", size)
    assert isinstance(network, UNet) and len(network.strides) == stages
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    assert max(module.out_channels for module in convolutions) == widest


def test_resenc_block_starts_as_its_shortcut() -> None:
    block = load("nnunet_resenc", (32, 32)).encoder[1][0]  # type: ignore[index, union-attr]
    image = torch.randn(2, 32, 9, 8)
    halved = nn.functional.avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False)
    conv_one, norm = block.shortcut[1]
    assert torch.equal(halved[:, :, 4, 0], image[:, :, 8, 0:2].mean(dim=2))  # the odd row is its own mean
    assert torch.allclose(block(image), nn.functional.leaky_relu(norm(conv_one(halved)), 0.01), atol=1e-6)


def test_resenc_anisotropic() -> None:
    network = load("nnunet_resenc", (64, 64, 12), width=4, depth=4, spacing=[1.0, 1.0, 4.0])
    assert network.kernel_sizes[0] == (3, 3, 1) and network.strides[1] == (2, 2, 1)
    image = torch.randn(1, 2, 33, 30, 5)
    full, half = network(image)
    assert full.shape == (1, 3, 33, 30, 5) and half.shape == (1, 3, 17, 15, 5)
    full.sum().backward()
    assert network.eval()(image).shape == full.shape


# --- our CNN ---


def cnn(size: tuple[int, ...] = (32, 32), **changes: Any) -> CNN:
    network = load("cnn", size, **changes)
    assert isinstance(network, CNN)
    return network


def test_cnn_parameters_by_hand() -> None:
    small: dict[str, Any] = {"depth": 2, "width": 4, "convs": [1, 2], "dense": [5], "norm": "none"}
    blocks = (2 * 4 * 9 + 4) + (4 * 8 * 9 + 8) + (8 * 8 * 9 + 8)
    assert parameters(cnn(**small)) == blocks + (8 * 5 + 5) + (5 * 3 + 3)
    assert parameters(cnn(**small | {"dense": []})) == blocks + (8 * 3 + 3)
    # Norms bring two numbers a feature and take the bias; flattening leaves 8 x 8 voxels.
    normed = blocks + 4 + 8 + 8
    assert parameters(cnn(**small | {"norm": "batch"})) == normed + (8 * 5 + 5) + (5 * 3 + 3)
    assert parameters(cnn(**small | {"global_pool": "none"})) == blocks + (8 * 64 * 5 + 5) + (5 * 3 + 3)
    assert parameters(cnn(**small | {"width": [4, 8]})) == parameters(cnn(**small))


@pytest.mark.parametrize(
    ("name", "kind"), [("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU), ("tanh", nn.Tanh), ("sigmoid", nn.Sigmoid)]
)
def test_cnn_activation(name: str, kind: type[nn.Module]) -> None:
    found = [m for m in cnn(activation=name).modules() if isinstance(m, nn.ReLU | nn.LeakyReLU | nn.Tanh | nn.Sigmoid)]
    assert len(found) == 1 + 1 + 3 * 2 + 1 and all(isinstance(module, kind) for module in found)


def test_cnn_pools_by_size_and_spacing() -> None:
    assert cnn((28, 28)).pooling == ((2, 2), (2, 2), (1, 1), (1, 1), (1, 1))
    assert cnn((128, 128, 6)).pooling == ((2, 2, 1),) * 5
    assert cnn((64, 64, 16), spacing=[1.0, 1.0, 4.0]).pooling[:3] == ((2, 2, 1), (2, 2, 1), (2, 2, 2))


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("global_pool", ["max", "avg", "none"])
@pytest.mark.parametrize("size", [(19, 26), (16, 17, 9)])
def test_cnn_pooling(size: tuple[int, ...], pool: str, global_pool: str) -> None:
    network = cnn(size, pool=pool, global_pool=global_pool, depth=3, width=4)
    assert network(torch.randn(2, 2, *size)).shape == (2, 3)
    if global_pool != "none":
        assert network(torch.randn(2, 2, *(count + 3 for count in size))).shape == (2, 3)


def test_cnn_global_average_ignores_where() -> None:
    """Over a periodic image the mean of features does not depend on a shift by the total stride."""
    network = cnn((32, 32), depth=1, convs=1, width=4, norm="none", kernel_size=1).eval()
    image = torch.randn(1, 2, 32, 32)
    assert torch.allclose(network(image), network(image.roll((2, 4), dims=(2, 3))), atol=1e-5)


@pytest.mark.parametrize("key", ["activation", "norm", "pool", "global_pool"])
def test_unknown_names_are_refused(key: str) -> None:
    with pytest.raises(InstantiationException, match=f"{key}=relish"):
        cnn(**{key: "relish"})


# --- padding ---


class Shape(nn.Module):
    """Returns the image and remembers its size."""

    def forward(self, image: Tensor) -> Tensor:
        self.size = tuple(image.shape[2:])
        return image


@pytest.mark.parametrize(
    ("size", "multiple", "seen"),
    [
        ((40, 56, 40), 16, (48, 64, 48)),
        ((48, 48, 20), 8, (48, 48, 24)),
        ((32, 64), 32, (32, 64)),
        ((30, 7), 32, (64, 32)),  # one cell alone is not enough
        ((9, 9, 3), [4, 4, 1], (12, 12, 3)),
    ],
)
def test_padding_is_undone(size: tuple[int, ...], multiple: int | list[int], seen: tuple[int, ...]) -> None:
    inner = Shape()
    image = torch.randn(2, 1, *size)
    assert torch.equal(PadToMultiple(inner, multiple)(image), image)
    assert inner.size == seen
