"""Folders of DICOM: imported once into the cache, then read as the NIfTI files and the table that came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.data.case import Case, Dataset, FileSource, TaskKind
from pipeline.data.labels import parse_labels
from pipeline.data.readers.decathlon import INDEX, labels_of, read_listing
from pipeline.data.readers.rows import Row, read_rows
from pipeline.data.readers.sources import inside, patient_finder, probe, raise_all, require_case_ids, require_root
from pipeline.errors import UserError
from pipeline.json_file import write_json

FINISHED = "finished.json"  # stands in a cached import that nothing was wrong with


def read_dicom(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind = "segmentation",
    labels: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    patient_pattern: str | None = None,
    dicom: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The series below ``root``, each a case (or several a case: ``dicom.modalities``), with RTSTRUCT and SEG as masks.

    They are imported once into a folder of ``cache`` that is named after the path, size and time of change of every
    file, and the settings ``dicom`` (see DicomSettings). ``labels``: voxel value -> ROI or segment name, in the order
    of painting; None: all names, sorted. ``report`` gets the number of cases imported and their total.
    Raises UserError(s) for every series that cannot be used.
    """
    from pipeline.data.dicom import DicomSettings, import_dicom
    from pipeline.data.dicom.importing import TABLE
    from pipeline.data.dicom.records import identity
    from pipeline.data.dicom.scan import list_files

    if task_kind != "segmentation":
        raise UserError(
            "data.format=dicom has masks and no classes; task=classification needs a target per case",
            "convert it with `python -m pipeline import`, add a column target to cases.csv, and use data=table",
        )
    if cache is None:
        raise UserError("data.format=dicom needs a cache folder", "name one: cache=FOLDER")
    folder = require_root(root)
    settings = DicomSettings(**(dicom or {}))
    values = dict(parse_labels(labels, "data.labels").values) if labels is not None else None
    if labels is not None and values is not None:
        values = {int(str(key)): values[int(str(key))] for key in labels}  # in the order given: that of painting
    said = {"settings": dataclasses.asdict(settings), "labels": None if values is None else list(values.items())}
    store = cache / "dicom" / identity(list_files(folder), {"root": str(folder), **said})[:24]
    notes: tuple[str, ...] = ()
    if not (store / FINISHED).is_file():
        cases = None if report is None else _cases_only(report)
        result = import_dicom(folder, store, settings, labels=values, workers=workers, report=cases)
        raise_all([fault.error() for fault in result.faults])
        if not any("label" in case.row for case in result.cases):
            raise UserError(f"{folder}: none of its {len(result.cases)} series is outlined by an RTSTRUCT or SEG")
        notes = tuple(result.notes)
        write_json(store / FINISHED, {"notes": list(notes)})
    index = store / TABLE
    declared = (
        parse_labels(values, "data.labels") if values is not None else labels_of(read_listing(store / INDEX), index)
    )
    names, rows = read_rows(index)
    modalities = tuple(column.partition(":")[2] or column for column in names if column.partition(":")[0] == "image")
    find_patient = patient_finder(patient_pattern)
    found = [_case(row, modalities, store, find_patient) for row in rows]
    require_case_ids((case.case_id for case in found), str(index))
    found_dims, channels = probe(found)
    return Dataset(
        name=name or folder.name,
        root=store,
        task="segmentation",
        cases=tuple(found),
        modalities=modalities,
        labels=declared,
        classes=(),
        spatial_dims=spatial_dims or found_dims,
        notes=notes,
        channels=max(channels, len(modalities)),
        index=index,
    )


def _cases_only(report: Callable[[int, int], None]) -> Callable[[str, int, int], None]:
    return lambda what, done, total: report(done, total) if what == "cases" else None


def _case(row: Row, modalities: tuple[str, ...], store: Path, find_patient: Callable[[str], str]) -> Case:
    images = {}
    for name in modalities:
        path = row.get(f"image:{name}") or (row.get("image") if name == "image" else None)
        if path:
            images[name] = FileSource(inside(store, path, TABLE_ORIGIN))
    present = row.get("labels_present")
    return Case(
        row["case_id"],
        find_patient(row["patient_id"]),
        images,
        FileSource(inside(store, row["label"], TABLE_ORIGIN)) if row["label"] else None,
        labels_present=None if not present else tuple(present.split(";")),
    )


TABLE_ORIGIN = "cases.csv of the imported series"
