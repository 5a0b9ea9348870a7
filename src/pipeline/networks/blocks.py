"""The parts that our networks share: convolution, normalisation, activation, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid")
NORMS = ("batch", "instance", "none")
LEAK = 0.01  # slope of the leaky ReLU, as in nnU-Net

_CONVOLUTION: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}


def activation_layer(name: str) -> nn.Module:
    """Return the activation called ``name``; raises ValueError when there is none."""
    match name:
        case "relu":
            return nn.ReLU(inplace=True)
        case "leaky_relu":
            return nn.LeakyReLU(LEAK, inplace=True)
        case "tanh":
            return nn.Tanh()
        case "sigmoid":
            return nn.Sigmoid()
    raise ValueError(f"activation={name} is none of {', '.join(ACTIVATIONS)}")


def norm_layer(name: str, spatial_dims: int, channels: int) -> nn.Module:
    """Return the normalisation called ``name``; raises ValueError when there is none."""
    match name:
        case "batch":
            return _BATCH_NORM[spatial_dims](channels)
        case "instance":
            return _INSTANCE_NORM[spatial_dims](channels, affine=True)
        case "none":
            return nn.Identity()
    raise ValueError(f"norm={name} is none of {', '.join(NORMS)}")


def convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int], bias: bool
) -> nn.Module:
    """Convolution with odd kernels that turns a size n into ceil(n / stride)."""
    return _CONVOLUTION[spatial_dims](
        in_channels,
        out_channels,
        tuple(kernel),
        stride=tuple(stride),
        padding=tuple(size // 2 for size in kernel),
        bias=bias,
    )


def upsampling(spatial_dims: int, in_channels: int, out_channels: int, stride: Sequence[int], bias: bool) -> nn.Module:
    """Transposed convolution without overlap: a size n becomes n * stride."""
    return _TRANSPOSED[spatial_dims](in_channels, out_channels, tuple(stride), stride=tuple(stride), bias=bias)


@dataclass(frozen=True)
class Style:
    """What all convolution blocks of a network have in common; ``bias``: convolutions have one also before a norm."""

    spatial_dims: int
    activation: str
    norm: str
    dropout: float = 0.0
    bias: bool = False


class ConvBlock(nn.Sequential):
    """Convolution, dropout of whole channels, normalisation, activation: ``(B, C, *spatial)`` in and out.

    ``linear`` leaves the activation away.
    """

    def __init__(
        self,
        style: Style,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        linear: bool = False,
    ) -> None:
        dims, bias = style.spatial_dims, style.bias or style.norm == "none"
        layers = [convolution(dims, in_channels, out_channels, kernel, stride, bias)]
        if style.dropout > 0:
            layers.append(_DROPOUT[dims](style.dropout))
        if style.norm != "none":
            layers.append(norm_layer(style.norm, dims, out_channels))
        if not linear:
            layers.append(activation_layer(style.activation))
        super().__init__(*layers)


class Stage(nn.Module):
    """``count`` convolution blocks, the first with ``stride``; ``residual`` adds a linear path around all of them.

    The path has no normalisation and nothing follows the sum. Where the grid is halved it uses the stage's kernel, so
    that no voxel is skipped; elsewhere a kernel of one.
    Source: Kerfoot et al., STACOM 2018 (the residual unit of MONAI's UNet).
    """

    def __init__(
        self,
        style: Style,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        count: int,
        residual: bool,
    ) -> None:
        super().__init__()
        one = (1,) * style.spatial_dims
        self.blocks = nn.Sequential()
        for i in range(count):
            inputs, step = (in_channels, stride) if i == 0 else (out_channels, one)
            self.blocks.append(ConvBlock(style, inputs, out_channels, kernel, step))
        self.shortcut: nn.Module | None = None
        if residual:
            reach = [size if step > 1 else 1 for size, step in zip(kernel, stride, strict=True)]
            self.shortcut = convolution(style.spatial_dims, in_channels, out_channels, reach, stride, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features of the stage, ``(B, out_channels, *ceil(spatial / stride))``."""
        result: Tensor = self.blocks(features)
        return result if self.shortcut is None else result + self.shortcut(features)


def initialise(module: nn.Module) -> None:
    """Draw the weights of a convolution or dense layer from He et al.'s normal distribution; biases are zero.

    Source: He et al., ICCV 2015.
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=LEAK)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def per_stage(value: int | Sequence[int], stages: int, name: str) -> list[int]:
    """Return one number a stage, from one for all or from a list whose last number holds for the stages after it.

    The number of stages may follow from the image, so a longer list is cut. Raises ValueError for an empty list or a
    number below one.
    """
    numbers = [value] if isinstance(value, int) else list(value)
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{name}={value} is not made of numbers from one on")
    return [numbers[min(stage, len(numbers) - 1)] for stage in range(stages)]
