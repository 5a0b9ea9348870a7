"""A table with one row per case: CSV, TSV or Parquet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.case import Case, Dataset, FileSource, TaskKind
from pipeline.data.image_io import stem_of
from pipeline.data.labels import Labels, parse_labels
from pipeline.data.readers.columns import PROPERTIES, Columns, keep_rows
from pipeline.data.readers.decathlon import INDEX, labels_of, read_listing
from pipeline.data.readers.rows import TABLES, Row, read_rows
from pipeline.data.readers.sources import (
    inside,
    listed,
    patient_finder,
    probe,
    raise_all,
    require_case_ids,
    require_file,
    require_root,
)
from pipeline.data.readers.targets import keep_targets, name_targets
from pipeline.errors import UserError

COLUMNS = {key: key for key in PROPERTIES}


def read_table(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind,
    labels: Mapping[Any, str] | None = None,
    targets: Sequence[str] | None = None,
    target_names: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    patient_pattern: str | None = None,
    table: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    keep: Mapping[str, Any] | None = None,
    allow_outside: bool = False,
) -> Dataset:
    """The cases of a table; image and mask paths are relative to ``root`` and stay inside unless ``allow_outside``.

    ``table``: file in ``root``; None: the only one there. ``columns``: property of a case -> column, template over
    columns (``images/{file}``) or None (see Columns); None: the columns bear the names of the properties. Several
    modalities are ``image:<name>``; an empty cell means that the case lacks one. Without ``case_id`` the image's name
    is the id, without ``patient_id`` each case is a patient. ``labels_present``: classes that the mask of a case
    annotates, separated by ; or | or commas; an empty cell means all. ``patient_pattern``:
    regular expression on the patient id whose first group is the patient. ``keep``: column -> value(s) of the rows to
    use. ``labels``: of the masks; None: from a dataset.json in ``root``. ``target_names``: value in the table ->
    class name. ``targets``: classes to keep, in the order of the outputs.
    Raises UserError.
    """
    folder = require_root(root)
    path = require_file(folder, table, "data.table") if table else only_table(folder)
    names, rows = read_rows(path)
    mapping = Columns(columns if columns is not None else COLUMNS, names, path)
    needed = "label" if task_kind == "segmentation" else "target"
    for key in ("image", needed):
        if key not in mapping and not (key == "image" and mapping.modalities):
            raise UserError(
                f"data.columns.{key} is not set; task={task_kind} needs it",
                f"name a column of {path.name}, or a template over several: it has {listed(names)}",
            )
    declared = None
    if task_kind == "segmentation":
        declared = parse_labels(labels, "data.labels") if labels is not None else labels_beside(folder)
    rows, notes = keep_rows(rows, keep, names, path)
    if declared is not None and labels is None:
        notes.append(f"labels as declared in {INDEX}: {', '.join(declared.names)}")
    if not rows:
        raise UserError(f"{path}: has no rows, the data set is empty")

    cases: list[Case] = []
    mistakes: list[UserError] = []
    read_row = _RowReader(mapping, folder, path, task_kind, patient_finder(patient_pattern), allow_outside)
    for row in rows:
        try:
            cases.append(read_row(row))
        except UserError as error:
            mistakes.append(error)
    raise_all(mistakes)
    require_case_ids((case.case_id for case in cases), f"{path}: case_id")

    classes: tuple[str, ...] = ()
    if task_kind == "classification":
        cases, classes, dropped = keep_targets(name_targets(cases, target_names, str(path)), targets, str(path))
        notes += dropped
    found_dims, channels = probe(cases, tuple(mapping.modalities))
    return Dataset(
        name=name or folder.name,
        root=folder,
        task=task_kind,
        cases=tuple(cases),
        modalities=tuple(mapping.modalities),
        labels=declared,
        classes=classes,
        spatial_dims=spatial_dims or found_dims,
        notes=tuple(notes),
        channels=channels,
        index=path,
    )


def only_table(folder: Path) -> Path:
    """The one table in a folder; raises UserError where there is none or more than one."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES)
    if len(found) != 1:
        said = f"holds {len(found)} tables ({listed([path.name for path in found])})" if found else "holds no table"
        raise UserError(f"{folder}: {said}", "name one with data.table=FILE (.csv, .tsv or .parquet)")
    return found[0]


def labels_beside(folder: Path) -> Labels:
    """Labels that a dataset.json beside the table declares; raises UserError where there is none."""
    if not (folder / INDEX).is_file():
        raise UserError(
            f"data.labels is not set and {folder} has no {INDEX}",
            "declare the voxel values of the masks: 'data.labels={0: background, 1: ...}'",
        )
    index = folder / INDEX
    return labels_of(read_listing(index), index)


@dataclass(frozen=True)
class _RowReader:
    """From a row to a case."""

    columns: Columns
    folder: Path
    table: Path
    task_kind: TaskKind
    find_patient: Callable[[str], str]
    allow_outside: bool

    def __call__(self, row: Row) -> Case:
        """The case of a row; raises UserError."""
        columns = self.columns
        images = {
            name: source for name, key in columns.modalities.items() if (source := self._source(key, row)) is not None
        }
        if not images:
            raise self._mistake(row, "image is missing")
        case_id = columns.value("case_id", row) if "case_id" in columns else self._name(row, images)
        if case_id is None:
            raise self._mistake(row, "case_id is missing")
        patient = columns.value("patient_id", row) if "patient_id" in columns else case_id
        if patient is None:
            raise self._mistake(row, f"patient_id of case {case_id} is missing")
        fold = columns.value("fold", row)
        if fold is not None and fold.endswith(".0"):  # as spreadsheets and pandas write whole numbers beside a gap
            fold = fold[:-2]
        if fold is not None and not (fold.isdecimal() and len(fold) < 10):
            raise self._mistake(row, f"fold {fold!r} of case {case_id} is no whole number from 0")
        segmentation = self.task_kind == "segmentation"
        label = self._source("label", row)  # a hostile path is refused whatever the task
        return Case(
            case_id,
            self.find_patient(patient),
            images,
            label if segmentation else None,
            columns.value("target", row) if not segmentation else None,
            columns.value("site", row),
            int(fold) if fold is not None else None,
            columns.value("split", row),
            class_names(columns.value("labels_present", row)) if segmentation else None,
        )

    def _source(self, key: str, row: Row) -> FileSource | None:
        name = self.columns.value(key, row)
        if name is None:
            return None
        try:
            return FileSource(inside(self.folder, name, key, allow_outside=self.allow_outside))
        except UserError as error:
            raise self._mistake(row, error.cause, *error.remedies) from None

    def _name(self, row: Row, images: Mapping[str, FileSource]) -> str:
        reference = next(iter(self.columns.modalities))
        if reference not in images:
            raise self._mistake(
                row, f"has no {reference} and so no name", "give the table a column case_id (data.columns.case_id)"
            )
        return stem_of(images[reference].path)

    def _mistake(self, row: Row, fault: str, *remedies: str) -> UserError:
        return UserError(f"{self.table}: row {listed(list(row.values()))}: {fault}", *remedies)


def class_names(text: str | None) -> tuple[str, ...] | None:
    """The names in a cell, separated by ; or | (by commas where there is neither); None where it is empty."""
    if text is None:
        return None
    parts = re.split(r"[;|]", text) if re.search(r"[;|]", text) else text.split(",")
    return tuple(part.strip() for part in parts if part.strip())
