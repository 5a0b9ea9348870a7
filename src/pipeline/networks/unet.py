"""U-Net: encoder, decoder and skip connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from pipeline.networks.blocks import Stage, Style, convolution, initialise, per_stage, upsampling
from pipeline.networks.grid import crop_to, fold_grid, unfold_grid
from pipeline.networks.topology import Steps, per_axis, plan_kernels, plan_strides, without_full_resolution


class UNet(nn.Module):
    """U-Net in two or three dimensions, for images of any size.

    Maps ``(B, in_channels, *spatial)`` to logits ``(B, out_channels, *spatial)``. In training with
    ``deep_supervision`` it returns a list of logits instead: full resolution first, then that of each coarser decoder
    stage but the coarsest (which has weight zero in nnU-Net).

    ``strides`` and ``kernel_sizes`` hold one entry a stage (one number, or one number an axis), or are ``auto``: then
    nnU-Net's rule derives at most ``depth`` stages from ``patch_size`` (voxels) and ``spacing`` (mm). With
    ``full_resolution`` the first of them works on the image's own grid, as in the papers. Without it a first stage of
    stride one is left out (beside ``depth``), and the image is folded: each cell of voxels becomes channels of one
    voxel, and the logits of a cell are unfolded from one voxel. No convolution then runs on the full grid, where most
    of the time goes. The same happens where the first stride given is not one.

    ``width`` is the number of features of the first stage, doubling up to ``max_width`` (one number, or one for each
    number of dimensions). ``residual`` adds a path around each stage, which makes short trainings converge in far fewer
    steps. ``conv_bias`` gives convolutions a bias also before a norm, which takes it away again.

    ``convs`` and ``decoder_convs`` are one number or a list for the stages that there are, whose last number holds for
    the stages after it.
    Raises ValueError when strides and kernels differ in length or an activation or norm does not exist.
    Source: Ronneberger et al., MICCAI 2015; Isensee et al., Nature Methods 2021; Kerfoot et al., STACOM 2018.
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
        convs: int | Sequence[int],
        decoder_convs: int | Sequence[int],
        kernel_sizes: str | Sequence[int | Sequence[int]],
        strides: str | Sequence[int | Sequence[int]],
        full_resolution: bool,
        residual: bool,
        activation: str,
        norm: str,
        dropout: float,
        deep_supervision: bool,
        conv_bias: bool = False,
    ) -> None:
        super().__init__()
        steps = _strides(spatial_dims, patch_size, spacing, depth if full_resolution else depth + 1, strides)
        self.strides = steps if full_resolution else without_full_resolution(steps)
        self.kernel_sizes = _kernel_sizes(spatial_dims, spacing, steps, kernel_sizes)[-len(self.strides) :]
        self.deep_supervision = deep_supervision
        stages, one = len(self.strides), (1,) * spatial_dims
        self.fold = self.strides[0]
        self.residual = residual
        style = Style(spatial_dims, activation, norm, dropout, conv_bias)
        most = max_width if isinstance(max_width, int) else max_width[spatial_dims]
        widths = [min(width * 2**stage, most) for stage in range(stages)]
        encoder_counts = per_stage(convs, stages, "convs")
        decoder_counts = per_stage(decoder_convs, stages - 1, "decoder_convs")

        def head(i: int, cell: int = 1) -> nn.Module:
            return convolution(spatial_dims, widths[i], out_channels * cell, one, one, bias=True)

        self.encoder = nn.ModuleList()
        self.upsamplings = nn.ModuleList()
        self.decoder = nn.ModuleList()
        inputs, strided = in_channels * prod(self.fold), (one, *self.strides[1:])
        for features, kernel, stride, count in zip(widths, self.kernel_sizes, strided, encoder_counts, strict=True):
            self.encoder.append(self.encoder_stage(style, inputs, features, kernel, stride, count))
            inputs = features
        for i in range(stages - 1):
            self.upsamplings.append(upsampling(spatial_dims, widths[i + 1], widths[i], self.strides[i + 1], bias=True))
            self.decoder.append(
                Stage(style, 2 * widths[i], widths[i], self.kernel_sizes[i], one, decoder_counts[i], residual)
            )
        self.head = head(0, prod(self.fold))
        finest = 0 if prod(self.fold) > 1 else 1
        self.coarse_heads = nn.ModuleDict(
            {str(i): head(i) for i in range(finest, stages - 2)} if deep_supervision else {}
        )
        self.apply(initialise)

    def encoder_stage(
        self,
        style: Style,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        count: int,
    ) -> nn.Module:
        """One stage of the encoder: ``(B, in, *spatial)`` to ``(B, out, *ceil(spatial / stride))``."""
        return Stage(style, in_channels, out_channels, kernel, stride, count, self.residual)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits for ``image``; see the class."""
        features = fold_grid(image, self.fold)
        skips: list[Tensor] = []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        coarse: list[Tensor] = []
        for i in reversed(range(len(self.decoder))):
            upsampled = crop_to(self.upsamplings[i](features), skips[i].shape[2:])
            features = self.decoder[i](torch.cat((upsampled, skips[i]), dim=1))
            if self.training and str(i) in self.coarse_heads:
                coarse.append(self.coarse_heads[str(i)](features))
        logits = crop_to(unfold_grid(self.head(features), self.fold), image.shape[2:])
        if self.training and self.deep_supervision:
            return [logits, *reversed(coarse)]
        return logits


def _strides(
    spatial_dims: int,
    patch_size: Sequence[int],
    spacing: Sequence[float] | None,
    depth: int,
    strides: str | Sequence[int | Sequence[int]],
) -> Steps:
    if not isinstance(strides, str):
        return per_axis(strides, spatial_dims)
    if strides != "auto":
        raise ValueError(f"strides={strides} is neither auto nor a list with one entry a stage")
    return plan_strides(patch_size, spacing, depth)


def _kernel_sizes(
    spatial_dims: int,
    spacing: Sequence[float] | None,
    strides: Steps,
    kernel_sizes: str | Sequence[int | Sequence[int]],
) -> Steps:
    if isinstance(kernel_sizes, str):
        if kernel_sizes != "auto":
            raise ValueError(f"kernel_sizes={kernel_sizes} is neither auto nor a list with one entry a stage")
        return plan_kernels(spacing, strides)
    chosen = per_axis(kernel_sizes, spatial_dims)
    if len(chosen) != len(strides):
        raise ValueError(f"kernel_sizes has {len(chosen)} entries, strides {len(strides)}")
    return chosen
