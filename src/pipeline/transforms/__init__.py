"""Transforms that MONAI lacks, or has in a slower form.

``Spacingd`` and ``PerModalityd`` stand in ``transforms.preprocessing``; ``RandomAffined`` works on one sample and
stands in ``transforms.augmentation``; the others work on the whole batch, on its device, and stand in
``transforms.batch_augmentation``.
"""

from pipeline.transforms.batch import BatchAugmentation, BatchTransform
from pipeline.transforms.blur import RandomBlur
from pipeline.transforms.brightness import RandomBrightness
from pipeline.transforms.contrast import RandomContrast
from pipeline.transforms.gamma import RandomGamma
from pipeline.transforms.low_resolution import RandomLowResolution
from pipeline.transforms.mirror import RandomMirror
from pipeline.transforms.noise import RandomNoise
from pipeline.transforms.per_modality import PerModalityd
from pipeline.transforms.random_affined import RandomAffined
from pipeline.transforms.spacing import Spacingd
from pipeline.transforms.spatial import RandomSpatial

__all__ = [
    "BatchAugmentation",
    "BatchTransform",
    "PerModalityd",
    "RandomAffined",
    "RandomBlur",
    "RandomBrightness",
    "RandomContrast",
    "RandomGamma",
    "RandomLowResolution",
    "RandomMirror",
    "RandomNoise",
    "RandomSpatial",
    "Spacingd",
]
