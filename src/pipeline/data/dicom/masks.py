"""Masks of one image from its structure sets and segmentations: ROIs to classes, classes to voxel values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from pipeline.data.dicom.fault import DicomError
from pipeline.data.dicom.geometry import Grid
from pipeline.data.dicom.instance import RTSTRUCT, Instance, quiet
from pipeline.data.dicom.segmentation import Segmentation
from pipeline.data.dicom.settings import DicomSettings
from pipeline.data.dicom.structure_set import StructureSet


def paint(
    instances: Sequence[Instance],
    grid: Grid,
    classes: Mapping[str, str],
    values: Mapping[str, int],
    settings: DicomSettings,
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """The mask (columns, rows, slices) of what ``instances`` outline, the classes they annotate, and notes.

    ``classes``: ROI or segment name -> class; ``values``: class -> voxel value, in the order of painting: where ROIs
    overlap the later one stays. Raises DicomError.
    """
    outlines: list[StructureSet | Segmentation] = [_open(instance, settings) for instance in instances]
    _require_unique(outlines, classes)
    mask = np.zeros(grid.shape, np.uint8 if max(values.values(), default=0) < 256 else np.uint16, order="F")
    annotated, notes = [], []
    owners = {value: name for name, value in values.items()}
    for name, value in values.items():
        own = np.zeros(grid.shape, bool, order="F")
        found = False
        for outline in outlines:
            for roi in outline.annotated:
                if classes.get(roi) == name:
                    found = True
                    _add(own, outline, roi, grid)
        if not found:
            continue
        annotated.append(name)
        covered = Counter(dict(zip(*(a.tolist() for a in np.unique(mask[own], return_counts=True)), strict=True)))
        for other, voxels in sorted(covered.items()):
            if other not in (0, value):
                notes.append(f"{voxels} voxels of {owners[other]} are also {name}: {name} stays, the later of the two")
        if not own.any():
            notes.append(f"{name} is outlined and encloses no voxel centre")
        mask[own] = value
    for outline in outlines:
        notes += outline.notes
    return mask, tuple(annotated), notes


def _add(mask: np.ndarray, outline: StructureSet | Segmentation, roi: str, grid: Grid) -> None:
    try:
        with quiet():
            for part in outline.masks(roi, grid):
                mask |= part
    except DicomError:
        raise
    except Exception as error:  # values are parsed when they are asked for
        raise DicomError(outline.path, f"ROI {roi} cannot be read ({error})", "export it again") from None


def _open(instance: Instance, settings: DicomSettings) -> StructureSet | Segmentation:
    if instance.sop_class == RTSTRUCT:
        return StructureSet(instance.path, settings.tolerance)
    return Segmentation(instance.path, settings.tolerance, settings.max_voxels)


def _require_unique(outlines: Sequence[StructureSet | Segmentation], classes: Mapping[str, str]) -> None:
    """Two files that outline the same ROI are versions or readers of it: which one is meant cannot be guessed."""
    seen: dict[str, Path] = {}
    for outline in outlines:
        for roi in outline.annotated:
            if roi in classes and seen.setdefault(roi, outline.path) != outline.path:
                said = f"ROI {roi} stands in {seen[roi].name} as well"
                raise DicomError(outline.path, said, "keep one of the two (versions? readers?), or name them apart")


def onto_grid(mask: np.ndarray, drawn: Grid, grid: Grid, path: Path) -> np.ndarray:
    """A mask on another grid of the same space: each voxel takes the nearest value, 0 outside.

    Raises DicomError where the two are not known to share a frame of reference.
    """
    if not drawn.frame_of_reference or drawn.frame_of_reference != grid.frame_of_reference:
        said = "outlines a series in another frame of reference than the first modality of the case"
        raise DicomError(path, said, "name the outlined modality first in modalities")
    matrix = np.linalg.inv(drawn.lps) @ grid.lps
    nearest: np.ndarray = affine_transform(mask, matrix[:3, :3], matrix[:3, 3], grid.shape, order=0, mode="constant")
    return np.asfortranarray(nearest)
