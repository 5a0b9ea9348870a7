"""The keys of ``data:``, and of the formats that have many of their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.schema_dicom import Dicom
from pipeline.config.schema_types import Count, Fraction, Range, Section


class Phantom(Section):
    """The generated data set: see ``pipeline.data.phantom.PhantomSettings`` for the meaning of each value."""

    seed: Annotated[int, Field(ge=0)]
    patients: Count
    second_scan_rate: Fraction
    tumour_free_rate: Fraction
    tumours_per_patient: tuple[int, int]
    tumour_diameter_mm: Range
    tumour_hu: Range
    chest_half_width_mm: Range
    chest_half_depth_mm: Range
    lung_height_mm: Range
    fat_mm: Range
    growth: Range
    orientations: list[str]
    spacing_mm: Range
    slice_mm: Range
    width_mm: Range
    depth_mm: Range
    height_mm: Range
    tilt_deg: float
    shift_mm: float
    lung_hu: Range
    blood_hu: Range
    blur_voxels: Range
    noise_hu: Range
    noise_correlation_voxels: float
    offset_hu: Range


class Bids(Section):
    """Which files of a BIDS folder are images, and where their masks and targets are."""

    datatype: str
    suffix: str | list[str]
    entities: dict[str, str | int] | None
    extension: str | None
    derivative: str | None
    mask: dict[str, str | int | None] | None
    site: str | None
    target: str | None


class Missing(Section):
    """What to do about what a case lacks."""

    modality: Literal["error", "drop", "zeros", "mean"]
    voxels: Literal["error", "fill", "interpolate"]
    target: Literal["error", "drop", "impute"]


class Data(Section):
    """Where the images are and what their labels mean."""

    format: Literal[
        "decathlon", "nnunet", "table", "files", "class_folders", "bids", "medmnist", "dicom", "phantom_lung"
    ]
    name: str
    root: str | None
    spatial_dims: Literal[2, 3] | None
    labels: dict[int, str] | None
    regions: dict[str, list[int]] | None
    ignore: int | None
    targets: list[str] | None
    target_names: dict[str | int, str] | None
    missing: Missing
    patient_pattern: str | None
    # files
    images: dict[str, str] | None
    mask: str | None
    # decathlon
    task: str | None
    download: bool
    # table
    table: str | None
    columns: dict[str, str | None] | None
    keep: dict[str, Any] | None
    allow_outside: bool
    # medmnist
    npz: str | None
    splits: list[str] | None
    # phantom_lung
    phantom: Phantom | None
    # dicom
    dicom: Dicom | None
    # bids
    bids: Bids | None
