"""A small convolutional classifier: convolution and pooling blocks, then dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.blocks import Stage, Style, activation_layer, initialise, per_stage
from pipeline.networks.topology import plan_strides

POOLS = ("max", "avg")
GLOBAL_POOLS = ("max", "avg", "none")


class CNN(nn.Module):
    """Classifier in two or three dimensions: maps ``(B, in_channels, *spatial)`` to logits ``(B, out_channels)``.

    ``depth`` blocks of ``convs`` convolutions, each followed by pooling that halves the axes which nnU-Net's rule
    halves for ``image_size`` (voxels) and ``spacing`` (mm): thin axes and coarse ones wait, and a small image is
    pooled less often than there are blocks. ``width`` is the number of features of the first block, doubling, or a
    list; of a list the last number holds for the blocks after it. ``dense`` are the widths of the hidden dense layers,
    each after dropout. ``global_pool`` averages (or takes the maximum) over space before them, so that images of any
    size are accepted; with ``none`` the features are flattened and only ``image_size`` fits.

    Raises ValueError for an empty list or a name that does not exist.
    Source: LeCun et al., Proc. IEEE 1998; Lin et al., ICLR 2014 (global pooling).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        image_size: Sequence[int],
        spacing: Sequence[float] | None,
        depth: int,
        width: int | Sequence[int],
        convs: int | Sequence[int],
        kernel_size: int,
        activation: str,
        norm: str,
        pool: str,
        global_pool: str,
        dense: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool={pool} is none of {', '.join(POOLS)}")
        if global_pool not in GLOBAL_POOLS:
            raise ValueError(f"global_pool={global_pool} is none of {', '.join(GLOBAL_POOLS)}")
        one = (1,) * spatial_dims
        pooling = plan_strides(image_size, spacing, depth + 1)[1:]
        self.pooling = (*pooling, *[one] * (depth - len(pooling)))
        self.pool = pool
        self.global_pool = global_pool
        widths = [width * 2**i for i in range(depth)] if isinstance(width, int) else per_stage(width, depth, "width")
        counts = per_stage(convs, depth, "convs")
        kernel = (kernel_size,) * spatial_dims
        style = Style(spatial_dims, activation, norm)
        self.blocks = nn.ModuleList()
        channels = in_channels
        for features, count in zip(widths, counts, strict=True):
            self.blocks.append(Stage(style, channels, features, kernel, one, count, residual=False))
            channels = features
        if global_pool == "none":
            # Pooling by two without padding drops the last voxel of an odd axis.
            size = list(image_size)
            for steps in self.pooling:
                size = [count // step for count, step in zip(size, steps, strict=True)]
            channels *= prod(size)
        self.dense = nn.Sequential()
        for features in dense:
            self.dense.append(nn.Dropout(dropout))
            self.dense.append(nn.Linear(channels, features))
            self.dense.append(activation_layer(activation))
            channels = features
        self.dense.append(nn.Dropout(dropout))
        self.dense.append(nn.Linear(channels, out_channels))
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits for ``image``; see the class."""
        features = image
        for block, steps in zip(self.blocks, self.pooling, strict=True):
            features = block(features)
            if prod(steps) > 1:
                features = _pool(features, self.pool, steps)
        if self.global_pool == "none":
            features = features.flatten(1)
        else:
            features = features.flatten(2)
            features = features.mean(2) if self.global_pool == "avg" else features.amax(2)
        logits: Tensor = self.dense(features)
        return logits


def _pool(features: Tensor, kind: str, steps: tuple[int, ...]) -> Tensor:
    if kind == "max":
        return functional.max_pool2d(features, steps) if len(steps) == 2 else functional.max_pool3d(features, steps)
    return functional.avg_pool2d(features, steps) if len(steps) == 2 else functional.avg_pool3d(features, steps)
