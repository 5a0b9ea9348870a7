"""BIDS folders: images chosen by the entities of their names, masks in derivatives, targets in participants.tsv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.data.case import Case, Dataset, FileSource, TaskKind
from pipeline.data.labels import Labels, parse_labels
from pipeline.data.readers.bids_masks import Masks
from pipeline.data.readers.bids_names import BidsFile, images_in, same, sessions
from pipeline.data.readers.rows import Row, read_rows
from pipeline.data.readers.sources import listed, nearest, probe, raise_all, require_case_ids, require_root
from pipeline.data.readers.targets import keep_targets, name_targets
from pipeline.errors import UserError

PARTICIPANTS = "participants.tsv"
DESCRIPTION = "dataset_description.json"


def read_bids(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind,
    labels: Mapping[Any, str] | None = None,
    targets: Sequence[str] | None = None,
    target_names: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    bids: Mapping[str, Any] | None = None,
) -> Dataset:
    """The cases of a BIDS folder: one per subject, session and run; the subject is the patient.

    ``bids``: ``datatype`` (folder of the images), ``suffix`` (one, or several that become modalities, the first is the
    reference), ``entities`` and ``extension`` that images must have, ``derivative`` (folder of the masks) with ``mask``
    (see Masks), and columns of participants.tsv for ``site`` and ``target``. ``labels``: of the masks.
    Raises UserError.
    """
    folder = require_root(root)
    choice = {key: value for key, value in (bids or {}).items() if value is not None}
    for key in ("datatype", "suffix"):
        if key not in choice:
            raise UserError(f"data.bids.{key} is not set", "as in data.bids={datatype: anat, suffix: T1w}")
    suffixes = tuple([choice["suffix"]] if isinstance(choice["suffix"], str) else choice["suffix"])
    if not suffixes or len(set(suffixes)) < len(suffixes):
        raise UserError(f"data.bids.suffix={listed(suffixes)}: name each suffix once")
    declared = _labels(labels, choice) if task_kind == "segmentation" else None
    if task_kind == "classification" and "target" not in choice:
        raise UserError("data.bids.target is not set; task=classification needs it", f"a column of {PARTICIPANTS}")
    places = list(sessions(folder))
    if not places:
        raise UserError(f"{folder}: has no folder sub-LABEL, so it is no BIDS data set")

    masks = None
    if task_kind == "segmentation":
        given = {key: value for key, value in choice["mask"].items() if value is not None}
        masks = Masks(folder, choice.get("derivative"), choice["datatype"], given)
    people = _participants(folder, choice)
    cases: list[Case] = []
    mistakes: list[UserError] = []
    for subject, session, place in places:
        try:
            for group in _groups(place / choice["datatype"], suffixes, choice):
                mask = masks.find(subject, session, group) if masks is not None else None
                cases.append(_case(subject, session, group, mask, people.get(subject, {})))
        except UserError as error:
            mistakes.append(error)
    raise_all(mistakes)
    if not cases:
        raise UserError(
            f"{folder}: no image sub-*/{choice['datatype']}/*_{'|'.join(suffixes)} as data.bids describes",
            f"there are {listed(_what_there_is(place for _, _, place in places))}",
        )
    require_case_ids((case.case_id for case in cases), str(folder))
    notes: list[str] = []
    without = sorted({subject for subject, _, _ in places} - {case.patient_id for case in cases})
    if without:
        notes.append(f"{len(without)} subjects have no such image and are left out: {listed(without)}")
    classes: tuple[str, ...] = ()
    if task_kind == "classification":
        origin = str(folder / PARTICIPANTS)
        cases, classes, dropped = keep_targets(name_targets(cases, target_names, origin), targets, origin)
        notes += dropped
    else:
        cases = [replace(case, target=None) for case in cases]
    found_dims, channels = probe(cases, suffixes)
    index = next((folder / file for file in (DESCRIPTION, PARTICIPANTS) if (folder / file).is_file()), None)
    return Dataset(
        name=name or folder.name,
        root=folder,
        task=task_kind,
        cases=tuple(cases),
        modalities=suffixes,
        labels=declared,
        classes=classes,
        spatial_dims=spatial_dims or found_dims,
        notes=tuple(notes),
        channels=channels,
        index=index,
    )


def _labels(labels: Mapping[Any, str] | None, choice: Mapping[str, Any]) -> Labels:
    if not choice.get("mask"):
        raise UserError(
            "data.bids.mask is not set; task=segmentation needs it",
            "as in data.bids.derivative=derivatives/masks data.bids.mask={suffix: dseg}",
        )
    if labels is None:
        raise UserError(
            "data.labels is not set", "declare the voxel values of the masks: 'data.labels={0: background, 1: ...}'"
        )
    return parse_labels(labels, "data.labels")


def _groups(place: Path, suffixes: Sequence[str], choice: Mapping[str, Any]) -> Iterator[dict[str, BidsFile]]:
    """The images of each case of a session, by suffix. An image without a run belongs to every run of the others."""
    wanted = {str(key): str(value) for key, value in (choice.get("entities") or {}).items()}
    files = [
        file
        for file in images_in(place)
        if file.suffix in suffixes and file.has(wanted) and choice.get("extension") in (None, file.extension)
    ]
    runs = list(dict.fromkeys(run for file in files if (run := file.entities.get("run")) is not None))
    by_suffix = {suffix: [file for file in files if file.suffix == suffix] for suffix in suffixes}
    single = all(len(found) <= 1 for found in by_suffix.values())
    for run in runs if runs and not single else [None] if files else []:
        group: dict[str, BidsFile] = {}
        for suffix, found in by_suffix.items():
            fit = [file for file in found if run is None or file.entities.get("run") in (None, run)]
            exact = [file for file in fit if file.entities.get("run") == run]
            fit = exact or fit
            if len(fit) > 1:
                raise UserError(
                    f"{place}: {len(fit)} images {suffix} for one case: {listed([file.path.name for file in fit])}",
                    "choose one by its entities: data.bids.entities={acq: ...}",
                )
            if fit:
                group[suffix] = fit[0]
        yield group


def _case(
    subject: str, session: str | None, group: Mapping[str, BidsFile], mask: Path | None, person: Mapping[str, str]
) -> Case:
    runs = {file.entities["run"] for file in group.values() if "run" in file.entities}
    parts = [subject, *([session] if session else []), *([f"run-{runs.pop()}"] if len(runs) == 1 else [])]
    for file in group.values():
        said = {"sub": subject.removeprefix("sub-"), "ses": session.removeprefix("ses-") if session else None}
        for entity, value in said.items():
            if not same(file.entities.get(entity), value):
                raise UserError(f"{file.path}: its name is that of another subject or session", "move or rename it")
    return Case(
        "_".join(parts),
        subject,
        {suffix: FileSource(file.path) for suffix, file in group.items()},
        FileSource(mask) if mask is not None else None,
        person.get("target"),
        person.get("site"),
    )


def _participants(folder: Path, choice: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Subject -> target and site, as far as participants.tsv gives them."""
    columns = {key: str(choice[key]) for key in ("target", "site") if key in choice}
    if not columns:
        return {}
    path = folder / PARTICIPANTS
    if not path.is_file():
        raise UserError(f"{path}: file not found", f"data.bids.{next(iter(columns))} names a column of it")
    names, rows = read_rows(path)
    for key, column in {"participant_id": "participant_id", **columns}.items():
        if column not in names:
            near = nearest(column, names)
            remedy = f"did you mean {near[0]}?" if near else f"it has {listed(names)}"
            raise UserError(f"{path}: has no column {column!r} (data.bids.{key})", remedy)
    people: dict[str, dict[str, str]] = {}
    for row in rows:
        subject = "sub-" + row["participant_id"].removeprefix("sub-")
        if subject in people:
            raise UserError(f"{path}: {subject} is listed twice (duplicate)")
        people[subject] = _known(row, columns)
    return people


def _known(row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    return {key: row[column] for key, column in columns.items() if row[column] not in ("", "n/a")}


def _what_there_is(places: Iterator[Path]) -> list[str]:
    """Datatypes and suffixes of the first session."""
    place = next(places)
    return [
        f"{datatype.name}/*_{suffix}"
        for datatype in sorted(path for path in place.iterdir() if path.is_dir())
        for suffix in sorted({file.suffix for file in images_in(datatype)})
    ]
