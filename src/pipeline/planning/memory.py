"""How much memory training needs, told by the feature maps of a reference network."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from pipeline.config.schema_planning import Reference
from pipeline.networks.topology import Steps


def feature_values(size: Sequence[int], strides: Steps, classes: int, network: Reference) -> int:
    """Values that nnU-Net's plain U-Net computes in one forward pass of a patch of ``size`` voxels.

    Outputs of every convolution in encoder and decoder, of the transposed ones and of the head; normalisation and
    activation work in place. Source: nnU-Net v2 (``compute_conv_feature_map_size``), which plans by the same number.
    """
    most = network.max_features.of(len(size))
    grid, total = list(size), 0
    for stage, stride in enumerate(strides):
        grid = [count // step for count, step in zip(grid, stride, strict=True)]
        per_voxel = network.convs * min(network.features * 2**stage, most)
        if stage < len(strides) - 1:  # the decoder has such a stage too, and what comes up into it
            per_voxel = (2 * network.convs + 1) * min(network.features * 2**stage, most)
        total += per_voxel * prod(grid)
    return total + classes * prod(size)
