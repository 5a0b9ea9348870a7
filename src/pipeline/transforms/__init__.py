"""Transforms that MONAI lacks, or has in a slower form."""

from pipeline.transforms.affine import RandomAffined
from pipeline.transforms.per_modality import PerModalityd
from pipeline.transforms.spacing import Spacingd

__all__ = ["PerModalityd", "RandomAffined", "Spacingd"]
