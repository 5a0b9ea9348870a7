"""One case: its series and their outlines become NIfTI files and a row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.dicom.cases import CasePlan, image_names
from pipeline.data.dicom.fault import DicomError, Fault
from pipeline.data.dicom.frames import ENHANCED, enhanced_thickness, list_slices
from pipeline.data.dicom.geometry import MISSING, Grid, arrange
from pipeline.data.dicom.instance import Instance
from pipeline.data.dicom.masks import onto_grid, paint
from pipeline.data.dicom.pixels import read_volume
from pipeline.data.dicom.settings import CASE, DicomSettings
from pipeline.data.dicom.write import write_nifti

HOUNSFIELD = "HU"
LABEL = "label"
PRESENT_SEPARATOR = ";"


@dataclass
class Converted:
    """What became of a case: its row, the files written (relative), notes; or why it was refused."""

    case_id: str
    row: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fault: Fault | None = None


def convert_case(
    plan: CasePlan, output: Path, classes: Mapping[str, str], values: Mapping[str, int], settings: DicomSettings
) -> Converted:
    """Write the images of a case, and the mask where it has one, below ``output``.

    ``classes``: ROI name -> class; ``values``: class -> voxel value. Nothing is raised for what is wrong with the case.
    """
    result = Converted(plan.case_id)
    uid = plan.series_uid
    try:
        grids = {}
        for name, instances in plan.images.items():
            uid = instances[0].series
            grids[name] = _convert_series(plan, name, instances, output, settings, result)
        annotated: tuple[str, ...] = ()
        if plan.masks and values:
            uid = plan.images[plan.outlined][0].series
            drawn = grids[plan.outlined]
            mask, annotated, notes = paint(plan.masks, drawn, classes, values, settings)
            grid = grids.get(image_names(settings)[0], drawn)
            if grid is not drawn:
                mask = onto_grid(mask, drawn, grid, plan.masks[0].path)
                notes.append(f"the mask was drawn on {plan.outlined} and put on the grid of the first modality")
            result.notes += [f"case {plan.case_id}: {note}" for note in notes]
            if annotated:
                result.row[LABEL] = f"labels/{plan.case_id}.nii.gz"
                result.files.append(result.row[LABEL])
                write_nifti(output / result.row[LABEL], mask, grid.affine)
    except DicomError as error:
        result.fault = error.of(uid)
    except MemoryError:
        first = plan.images[next(iter(plan.images))][0]
        result.fault = Fault(uid, str(first.path), "does not fit into memory", "use fewer workers")
    firsts = [instances[0] for instances in plan.images.values()]
    result.row |= {
        "case_id": plan.case_id,
        "patient_id": plan.patient_id,
        "modality": " ".join(first.modality for first in firsts),
        "series": plan.series,
        "units": " ".join(_units(first) for first in firsts),
    }
    if settings.absent == "unannotated" and LABEL in result.row:
        result.row["labels_present"] = PRESENT_SEPARATOR.join(annotated)
    return result


def _convert_series(
    plan: CasePlan, name: str, instances: tuple[Instance, ...], output: Path, settings: DicomSettings, result: Converted
) -> Grid:
    slices = list_slices(instances, settings.max_voxels)
    first = instances[0]
    thickness = first.thickness or (enhanced_thickness(first.path) if first.sop_class in ENHANCED else None)
    ordered, grid = arrange(slices, thickness, settings.tolerance, first.frame_of_reference)
    if thickness and len(ordered) > 1 and grid.step > MISSING * thickness:
        said = f"slices of {name} lie {grid.step:.4g} mm apart, its header says {thickness:.4g} mm: were some lost?"
        result.notes.append(f"case {plan.case_id}: {said}")
    volume = read_volume(ordered, grid, instances)
    column = image_column(name)
    path = f"images/{plan.case_id}.nii.gz" if name == CASE else f"images/{plan.case_id}_{name}.nii.gz"
    write_nifti(output / path, volume, grid.affine)
    result.files.append(path)
    result.row[column] = path
    return grid


def image_column(name: str) -> str:
    """The column of the table that holds the path of an image."""
    return CASE if name == CASE else f"{CASE}:{name}"


def _units(instance: Instance) -> str:
    """Units of the voxels: HU for CT, what the header says for PET, such as BQML or GML (SUV), else ``-``."""
    return HOUNSFIELD if instance.modality == "CT" else "".join(instance.units.split()) or "-"
