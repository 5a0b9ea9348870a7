"""What can be wrong with a data set: one family per file, one function per rule, each from readings to faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.rules import files, geometry, intensities, masks, missing, patients
from pipeline.data.integrity.view import View

RULES: tuple[Callable[[View], Iterator[Fault]], ...] = (
    files.unreadable,
    files.outside,
    files.reused,
    files.duplicate_images,
    files.duplicate_masks,
    geometry.doubtful_header,
    geometry.dimensions,
    geometry.same_grid,
    intensities.nonfinite,
    intensities.constant,
    intensities.other_units,
    missing.modality,
    missing.annotated,
    masks.values,
    masks.empty,
    masks.rare_classes,
    patients.case_ids,
    patients.enough_patients,
    patients.given_folds,
    patients.targets,
)
