"""Cross-validation folds: patients never parted, strata even, a function of the seed alone."""

from pipeline.data.folds.files import read_folds, write_folds
from pipeline.data.folds.fold import Fold, Group, assert_disjoint
from pipeline.data.folds.make import Scheme, folds_of, make_folds
from pipeline.data.folds.strata import Stratify

__all__ = [
    "Fold",
    "Group",
    "Scheme",
    "Stratify",
    "assert_disjoint",
    "folds_of",
    "make_folds",
    "read_folds",
    "write_folds",
]
