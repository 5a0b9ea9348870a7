"""What can be wrong with a data set: one family per file, one function per rule, each from readings to faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.data.integrity.result import Fault
from pipeline.data.integrity.rules import (
    agreement,
    duplicates,
    files,
    geometry,
    intensities,
    masks,
    missing,
    names,
    outliers,
    patients,
    shortcuts,
)
from pipeline.data.integrity.view import View

RULES: tuple[Callable[[View], Iterator[Fault]], ...] = (
    files.unreadable,
    files.outside,
    files.reused,
    duplicates.duplicate_images,
    duplicates.same_modalities,
    duplicates.near_duplicates,
    duplicates.duplicate_masks,
    geometry.doubtful_header,
    geometry.sheared,
    geometry.dimensions,
    geometry.same_grid,
    geometry.little_overlap,
    intensities.swapped,
    intensities.nonfinite,
    intensities.constant,
    intensities.nearly_constant,
    intensities.like_a_mask,
    intensities.blank_slices,
    intensities.cut_off,
    intensities.other_units,
    outliers.size,
    outliers.number_type,
    outliers.inverted,
    outliers.air,
    missing.modality,
    missing.annotated,
    masks.values,
    masks.empty,
    masks.misfit,
    agreement.faint,
    agreement.exchanged,
    masks.rare_classes,
    patients.case_ids,
    patients.enough_patients,
    patients.given_folds,
    patients.unused_splits,
    patients.targets,
    names.look_alike,
    names.absent,
    names.mispaired,
    shortcuts.class_given_away,
)
