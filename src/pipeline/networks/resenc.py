"""The residual-encoder U-Net of nnU-Net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from torch import Tensor, nn

from pipeline.networks.blocks import ConvBlock, Style, activation_layer
from pipeline.networks.unet import UNet

_AVERAGE: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class ResidualEncoderUNet(UNet):
    """``UNet`` whose encoder is made of residual blocks after a stem; see there for shapes and the other arguments.

    ``blocks``: residual blocks a stage, one number or a list whose last number holds for the stages after it. The stem
    is one convolution block at the first stage's width. The decoder is plain, with ``decoder_convs`` convolutions.
    Source: Isensee et al., nnU-Net Revisited, MICCAI 2024 (ResEnc); He et al., CVPR 2019 (average on the shortcut).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: Sequence[int],
        spacing: Sequence[float] | None,
        depth: int,
        width: int,
        max_width: int | Mapping[int, int],
        blocks: int | Sequence[int],
        decoder_convs: int | Sequence[int],
        kernel_sizes: str | Sequence[int | Sequence[int]],
        strides: str | Sequence[int | Sequence[int]],
        full_resolution: bool,
        activation: str,
        norm: str,
        dropout: float,
        deep_supervision: bool,
        conv_bias: bool = False,
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            patch_size=patch_size,
            spacing=spacing,
            depth=depth,
            width=width,
            max_width=max_width,
            convs=blocks,
            decoder_convs=decoder_convs,
            kernel_sizes=kernel_sizes,
            strides=strides,
            full_resolution=full_resolution,
            residual=False,
            activation=activation,
            norm=norm,
            dropout=dropout,
            deep_supervision=deep_supervision,
            conv_bias=conv_bias,
        )
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.begin_as_shortcut()

    def encoder_stage(
        self,
        style: Style,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        count: int,
    ) -> nn.Module:
        """Residual blocks, the first with ``stride``; in the first stage after the stem."""
        one = (1,) * style.spatial_dims
        layers = nn.Sequential()
        if len(self.encoder) == 0:
            layers.append(ConvBlock(style, in_channels, out_channels, kernel, one))
            in_channels = out_channels
        for i in range(count):
            inputs, steps = (in_channels, stride) if i == 0 else (out_channels, one)
            layers.append(ResidualBlock(style, inputs, out_channels, kernel, steps))
        return layers


class ResidualBlock(nn.Module):
    """Two convolution blocks, the second without activation, plus the input; then the activation.

    On the path around them the grid is averaged over ``stride``, and features are projected by a convolution of one
    voxel (without bias) and a norm where their number changes.
    """

    def __init__(
        self, style: Style, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        one = (1,) * style.spatial_dims
        self.first = ConvBlock(style, in_channels, out_channels, kernel, stride)
        self.second = ConvBlock(style, out_channels, out_channels, kernel, one, linear=True)
        self.shortcut = nn.Sequential()
        if prod(stride) > 1:
            # Odd sizes are rounded up, as by the convolutions.
            pool = _AVERAGE[style.spatial_dims]
            self.shortcut.append(pool(tuple(stride), ceil_mode=True, count_include_pad=False))
        if in_channels != out_channels:
            plain = Style(style.spatial_dims, style.activation, style.norm)
            self.shortcut.append(ConvBlock(plain, in_channels, out_channels, one, one, linear=True))
        self.activation = activation_layer(style.activation)

    def begin_as_shortcut(self) -> None:
        """Start from the path around: the last norm's gain is zero. Source: as nnU-Net initialises it."""
        for module in self.second:
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.weight is not None:
                nn.init.zeros_(module.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(B, out_channels, *ceil(spatial / stride))``."""
        result: Tensor = self.activation(self.second(self.first(features)) + self.shortcut(features))
        return result
