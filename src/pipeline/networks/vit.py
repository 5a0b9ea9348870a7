"""Vision transformer as a classifier."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import ViT
from torch import Tensor, nn
from torch.nn import functional


class VisionTransformer(nn.Module):
    """MONAI's ViT for images of one size: maps ``(B, in_channels, *image_size)`` to logits ``(B, out_channels)``.

    Each axis is cut into ``tokens_per_axis`` tokens (fewer when the image has fewer voxels), so the number of tokens
    does not depend on the image's size; borders are filled up with the last voxel. Unlike MONAI's class it returns
    nothing but logits, without a tanh after them. Raises ValueError for an image of another size.
    Source: Dosovitskiy et al., ICLR 2021.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        image_size: Sequence[int],
        tokens_per_axis: int,
        hidden_size: int,
        mlp_dim: int,
        num_layers: int,
        num_heads: int,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.image_size = tuple(image_size)
        token_size = [-(-size // tokens_per_axis) for size in image_size]
        padded = [-(-size // token) * token for size, token in zip(image_size, token_size, strict=True)]
        self.excess = [target - size for target, size in zip(padded, image_size, strict=True)]
        self.network = ViT(
            in_channels=in_channels,
            img_size=padded,
            patch_size=token_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            classification=True,
            num_classes=out_channels,
            dropout_rate=dropout_rate,
            spatial_dims=spatial_dims,
            post_activation="none",
        )
        for name, parameter in self.network.named_parameters():
            # MONAI makes this layer and never uses it, which would stop distributed training.
            if "norm_cross_attn" in name:
                parameter.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits for ``image``; see the class."""
        if tuple(image.shape[2:]) != self.image_size:
            raise ValueError(f"the transformer was built for images of {self.image_size}, not {tuple(image.shape[2:])}")
        if any(self.excess):
            sides = [side for end in reversed(self.excess) for side in (0, end)]
            image = functional.pad(image, sides, mode="replicate")
        logits: Tensor = self.network(image)[0]
        return logits
