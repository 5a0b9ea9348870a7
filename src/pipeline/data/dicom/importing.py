"""A folder of DICOM converted once: images/, labels/, cases.csv and dataset.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.dicom.cases import CasePlan, image_names, plan_cases
from pipeline.data.dicom.convert import LABEL, Converted, convert_case, image_column
from pipeline.data.dicom.fault import Fault
from pipeline.data.dicom.parallel import in_parallel
from pipeline.data.dicom.records import LOCK, Records, key_of, locked
from pipeline.data.dicom.roi_classes import choose_classes
from pipeline.data.dicom.scan import list_files, scan
from pipeline.data.dicom.settings import CASE, DicomSettings
from pipeline.data.dicom.write import sweep, write_csv
from pipeline.errors import UserError
from pipeline.json_file import write_json

TABLE = "cases.csv"
INDEX = "dataset.json"

Report = Callable[[str, int, int], None]


@dataclass
class ImportResult:
    """What an import did.

    ``cases``: finished, ``unchanged`` of them before. ``values``: class -> voxel value. ``files``: looked at.
    """

    cases: list[Converted] = field(default_factory=list)
    unchanged: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    values: dict[str, int] = field(default_factory=dict)
    files: int = 0


def import_dicom(
    source: Path,
    output: Path,
    settings: DicomSettings | None = None,
    *,
    labels: Mapping[int, str] | None = None,
    workers: int = 1,
    report: Report | None = None,
) -> ImportResult:
    """Convert the series below ``source`` to NIfTI below ``output``, with cases.csv and dataset.json.

    ``labels``: voxel value -> class, which chooses and orders the ROIs (where they overlap the later one stays); None:
    all ROIs, sorted by name, from 1. Cases that an earlier import into the same folder finished are not converted
    again. ``report``: gets what is counted (``headers`` or ``cases``), how many are done, and of how many.
    Series that cannot be used are faults of the result; raises UserError where nothing can be imported.
    """
    settings = settings or DicomSettings()
    _require_folder_for_us(source, output)
    with locked(output):
        for folder in (output, output / "images", output / "labels"):
            sweep(folder)
        return _import(source, output, settings, labels, workers, report or (lambda what, done, total: None))


def _import(
    source: Path,
    output: Path,
    settings: DicomSettings,
    labels: Mapping[int, str] | None,
    workers: int,
    report: Report,
) -> ImportResult:
    found = scan(list_files(source), workers=workers, report=lambda done, total: report("headers", done, total))
    plans, faults, notes = plan_cases(found, settings)
    result = ImportResult(faults=[*found.faults, *faults], notes=found.notes + notes, files=found.files)
    if not plans and not result.faults:
        raise UserError(f"{source}: holds no DICOM images ({found.files} files looked at)", *found.notes)
    classes, result.values, said = choose_classes(
        [mask for plan in plans for mask in plan.masks], labels, settings.rois
    )
    result.notes += said
    unlistable = [name for name in result.values if set(name) & set(";|,")]
    if settings.absent == "unannotated" and unlistable:
        said_so = f"class {unlistable[0]} cannot stand in the list labels_present: it holds one of ; | ,"
        raise UserError(said_so, "give it another name with rois={NAME: [PATTERN]}")
    records = Records(output)
    keys = {plan.case_id: key_of(plan, classes, result.values, settings) for plan in plans}
    left: list[CasePlan] = []
    for plan in plans:
        known = records.recall(plan.case_id, keys[plan.case_id], output)
        if known is None:
            left.append(plan)
        else:
            result.cases.append(known)
    result.unchanged = len(result.cases)
    calls = [(plan, output, classes, result.values, settings) for plan in left]
    for done, converted in enumerate(in_parallel(convert_case, calls, workers), start=result.unchanged + 1):
        if converted.fault is not None:
            result.faults.append(converted.fault)
        else:
            records.keep(keys[converted.case_id], converted, output)
            result.cases.append(converted)
        report("cases", done, len(plans))
    result.cases.sort(key=lambda case: case.case_id)
    result.notes += [note for case in result.cases for note in case.notes] + _mixed_units(result.cases)
    current = {case.case_id for case in result.cases}
    _write_tables(output, result, settings)
    gone = records.forget(current, {name for case in result.cases for name in case.files}, output)
    if gone:
        result.notes.append(f"the files of {gone} cases that {source} no longer gives were deleted")
    return result


def _require_folder_for_us(source: Path, output: Path) -> None:
    if not source.is_dir():
        raise UserError(f"{source}: {'no folder' if source.exists() else 'folder not found'}", "name a folder of DICOM")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file", "name a folder for the output")
    if source.resolve().is_relative_to(output.resolve()):
        raise UserError(f"{output}: the DICOM lie in the folder of the output", "name another folder for the output")
    if output.is_dir() and not (output / LOCK).exists() and any(output.iterdir()):
        raise UserError(f"{output}: is not empty and holds no earlier import", "name another folder for the output")


def _write_tables(output: Path, result: ImportResult, settings: DicomSettings) -> None:
    names = image_names(settings)
    columns = ["case_id", "patient_id", *(image_column(name) for name in names), LABEL, "modality", "series", "units"]
    if settings.absent == "unannotated":
        columns.append("labels_present")
    write_csv(output / TABLE, columns, [{column: c.row.get(column, "") for column in columns} for c in result.cases])
    training = [_entry(case, names) for case in result.cases if LABEL in case.row]
    index: dict[str, Any] = {
        "name": output.name,
        "description": "imported from DICOM",
        "modality": {str(number): name for number, name in enumerate(_modalities(result.cases, names))},
        "labels": {"0": "background"} | {str(value): name for name, value in result.values.items()},
        "numTraining": len(training),
        "training": training,
    }
    write_json(output / INDEX, index)


def _entry(case: Converted, names: Sequence[str]) -> dict[str, Any]:
    if tuple(names) == (CASE,):
        return {"image": case.row[CASE], "label": case.row[LABEL]}
    images = {name: case.row[image_column(name)] for name in names if image_column(name) in case.row}
    return {"images": images, "label": case.row[LABEL]}


def _modalities(cases: Sequence[Converted], names: Sequence[str]) -> list[str]:
    if tuple(names) != (CASE,):
        return list(names)
    found = sorted({case.row["modality"] for case in cases})
    return found if len(found) == 1 else [CASE]


def _mixed_units(cases: Sequence[Converted]) -> list[str]:
    """A note for each modality whose series come in several units: a network would see two scales."""
    units: dict[str, set[str]] = {}
    for case in cases:
        for modality, unit in zip(case.row["modality"].split(), case.row["units"].split(), strict=False):
            units.setdefault(modality, set()).add(unit)
    return [
        f"{modality} series come in different units: {', '.join(sorted(found))} (column units of {TABLE})"
        for modality, found in sorted(units.items())
        if len(found) > 1
    ]
