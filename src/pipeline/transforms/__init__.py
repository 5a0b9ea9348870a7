"""Transforms that MONAI lacks, or has in a slower form."""

from pipeline.transforms.affine import RandomAffined

__all__ = ["RandomAffined"]
