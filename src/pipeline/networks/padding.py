"""Networks that need sizes divisible by their total stride, made to accept any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class PadToMultiple(nn.Module):
    """Pads the image on both sides with its border voxels for ``network``, and cuts the logits back.

    ``multiple`` is the divisor of each axis (or one number an axis). At least two cells of ``multiple`` remain, because
    normalisation over a single voxel is undefined in training. Logits without spatial axes are left as they are.
    """

    def __init__(self, network: nn.Module, multiple: int | Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, image: Tensor) -> Any:
        """Map ``(B, C, *spatial)`` to what the network gives, its spatial axes cut to those of ``image``."""
        shape = image.shape[2:]
        multiple = [self.multiple] * len(shape) if isinstance(self.multiple, int) else list(self.multiple)
        padded = [-(-size // step) * step for size, step in zip(shape, multiple, strict=True)]
        if padded == multiple:
            padded[0] *= 2
        before = [(target - size) // 2 for target, size in zip(padded, shape, strict=True)]
        if padded != list(shape):
            after = [target - size - start for target, size, start in zip(padded, shape, before, strict=True)]
            sides = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
            image = functional.pad(image, sides, mode="replicate")
        logits = self.network(image)
        if isinstance(logits, Tensor) and logits.ndim == image.ndim:
            for axis, (start, size) in enumerate(zip(before, shape, strict=True), start=2):
                if logits.shape[axis] != size:
                    logits = logits.narrow(axis, start, size)
        return logits
