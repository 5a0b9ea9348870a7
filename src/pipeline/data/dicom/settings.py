"""What a user chooses about an import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CASE = "image"  # the one image of a case where no modalities are named


@dataclass(frozen=True)
class DicomSettings:
    """Which series become which images, and how strict the geometry is.

    ``modalities``: None: each series is a case. Otherwise the images of a case: DICOM modalities (``["CT", "PT"]``), or
    name -> modality and a pattern of the series description (``{"t1": "MR *t1*"}``, shell wildcards, upper and lower
    case alike). ``group``: with several modalities, what makes one case of their series. ``rois``: class name ->
    patterns of ROI and segment names; None: names are classes. ``absent``: what a class is whose ROI a mask lacks.
    ``tolerance``: how far a slice may lie from its place on a regular grid, as a part of a voxel. ``max_voxels``: of
    one volume. ``keep_ids``: patient ids and UIDs as they are, else hashed together with ``salt``.
    """

    modalities: Sequence[str] | Mapping[str, str] | None = None
    group: Literal["study", "patient"] = "study"
    rois: Mapping[str, Sequence[str]] | None = None
    absent: Literal["background", "unannotated"] = "background"
    tolerance: float = 0.1
    max_voxels: int = 1_000_000_000
    keep_ids: bool = False
    salt: str | None = None

    @property
    def images(self) -> dict[str, str]:
        """Name of each image of a case -> pattern of ``MODALITY description`` of the series that gives it."""
        if self.modalities is None:
            return {CASE: "*"}
        if isinstance(self.modalities, Mapping):
            named = {name: pattern.strip() for name, pattern in self.modalities.items()}
        else:
            named = {name: name for name in self.modalities}
        return {name: pattern if " " in pattern else f"{pattern} *" for name, pattern in named.items()}
