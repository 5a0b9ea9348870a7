"""The keys of what is measured of data: fingerprint, drift of new images, limits of the check."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema_types import Count, Fraction, Percent, Section


class Fingerprint(Section):
    """How the data set is measured for fingerprint.json."""

    sample_voxels: Count
    pool_voxels: Count
    connectivity: Literal["faces", "edges", "corners"]
    percentiles: Annotated[list[Percent], Field(min_length=2)]
    seed: Annotated[int, Field(ge=0)]


class Drift(Section):
    """Limits beyond which new images are unlike the training data."""

    enabled: bool
    spacing_factor: Annotated[float, Field(gt=1)]
    size_factor: Annotated[float, Field(gt=1)]
    margin: Annotated[float, Field(ge=0)]
    central: tuple[Percent, Percent]
    least_width: Fraction
    median_margin: Annotated[float, Field(ge=0)]
    median_files: Count
    few_cases: Annotated[int, Field(ge=0)]


class Check(Section):
    """Limits of the integrity check: see ``pipeline.data.integrity.CheckSettings``."""

    affine_tolerance_mm: Annotated[float, Field(ge=0)]
    fewest_foreground_voxels: Annotated[int, Field(ge=0)]
    intensity_factor: Annotated[float, Field(gt=1)]
    air_shift_hu: Annotated[float, Field(gt=0)]
    saturated_fraction: Fraction
    spacing_factor: Annotated[float, Field(gt=1)]
    inverted_correlation: Annotated[float, Field(ge=-1, lt=0)]
    near_duplicate_bits: Annotated[int, Field(ge=0, le=15)] | None
    misfit: Fraction
    contact_sheet_cases: Annotated[int, Field(ge=0)]
