"""Each modality its own intensity transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class PerModalityd(MapTransform):
    """Applies to each channel the transform of its modality.

    ``transforms``: one per channel, in the order of the modalities; each takes an image (1, *spatial) and gives one of
    the same shape; None leaves the channel as it is. Raises ValueError where their number is not that of the channels.
    """

    def __init__(self, keys: KeysCollection, transforms: Sequence[Any], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transforms = tuple(transforms)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The mapping with the channels of each key transformed."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            if len(image) != len(self.transforms):
                raise ValueError(f"{len(image)} modalities, but PerModalityd has {len(self.transforms)} transforms")
            parts = [
                image[channel : channel + 1] if transform is None else transform(image[channel : channel + 1])
                for channel, transform in enumerate(self.transforms)
            ]
            result[key] = torch.cat(parts)
        return result
