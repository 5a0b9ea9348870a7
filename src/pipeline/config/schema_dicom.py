"""The keys of ``python -m pipeline import`` and of ``data.dicom``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema_types import Count, Section

ImageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]  # becomes part of a file name


class Dicom(Section):
    """Which series become which images: see ``pipeline.data.dicom.DicomSettings``."""

    modalities: Annotated[list[ImageName] | dict[ImageName, str] | None, Field(min_length=1)]
    group: Literal["study", "patient"]
    rois: Annotated[dict[str, list[str]] | None, Field(min_length=1)]
    absent: Literal["background", "unannotated"]
    tolerance: Annotated[float, Field(gt=0, lt=0.5)]  # of a voxel
    max_voxels: Count
    keep_ids: bool
    salt: str | None


class ImportConfig(Dicom):
    """``python -m pipeline import``."""

    source: str
    output: str
    labels: dict[int, str] | None
    workers: Count | None
    trust: list[str]
