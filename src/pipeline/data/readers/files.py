"""Cases found by the names of their files: one template per modality, such as ``{case}/CT.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.case import Case, Dataset, FileSource, TaskKind
from pipeline.data.labels import parse_labels
from pipeline.data.readers.sources import inside, listed, patient_finder, probe, require_case_ids, require_root
from pipeline.errors import UserError

FIELDS = ("case", "patient", "site")
FIELD = re.compile(r"\{([^{}]*)\}")


def read_files(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind,
    images: Mapping[str, str] | None = None,
    mask: str | None = None,
    labels: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    patient_pattern: str | None = None,
) -> Dataset:
    """Every case of which ``root`` has at least one image.

    ``images``: modality -> template of the path below ``root``, in the order of the channels, the reference grid
    first; ``mask``: template of the mask. A template holds ``{case}`` and may hold ``{patient}`` and ``{site}``, each
    a part of a path without a slash. A case without the file of a modality lacks that modality. Without ``{patient}``
    every case is a patient, or what ``patient_pattern`` finds in the case id. ``labels``: as in data.labels.
    Raises UserError.
    """
    if task_kind != "segmentation":
        raise UserError("data.format=files has masks and no targets", "list the cases with their target: data=table")
    folder = require_root(root)
    if not images:
        raise UserError("data.images is not set", "name a template per modality: data.images={CT: '{case}/CT.nii.gz'}")
    if mask is None:
        raise UserError("data.mask is not set", "name the template of the masks: data.mask='{case}/mask.nii.gz'")
    if labels is None:
        raise UserError("data.labels is not set", "declare the voxel values: 'data.labels={0: background, 1: ...}'")
    declared = parse_labels(labels, "data.labels")
    found: dict[str, dict[str, str]] = {}
    paths: dict[str, dict[str, FileSource]] = {}
    for modality, template in images.items():
        for fields, path in matches(folder, template, f"data.images.{modality}"):
            known = found.setdefault(fields["case"], fields)
            if modality in paths.setdefault(fields["case"], {}) or known | fields != fields | known:
                raise UserError(f"{path}: a second {modality} of case {fields['case']}", "make {case} name one case")
            paths[fields["case"]][modality] = FileSource(path)
    if not found:
        raise UserError(f"{folder}: no file is named like {listed(list(images.values()))}", "check data.images")
    require_case_ids(list(found), f"{folder}: the case in data.images")
    masks = {fields["case"]: FileSource(path) for fields, path in matches(folder, mask, "data.mask")}
    find_patient = patient_finder(patient_pattern)
    cases = [
        Case(
            case_id,
            fields.get("patient") or find_patient(case_id),
            {modality: paths[case_id][modality] for modality in images if modality in paths[case_id]},
            masks.get(case_id),
            site=fields.get("site"),
        )
        for case_id, fields in sorted(found.items())
    ]
    alone = sorted(set(masks) - set(found))
    notes = (f"{len(alone)} masks have no image, such as that of {alone[0]}: left out",) if alone else ()
    found_dims, channels = probe(cases)
    return Dataset(
        name=name or folder.name,
        root=folder,
        task=task_kind,
        cases=tuple(cases),
        modalities=tuple(images),
        labels=declared,
        classes=(),
        spatial_dims=spatial_dims or found_dims,
        notes=notes,
        channels=channels if len(images) == 1 else len(images),
        index=folder,
    )


def matches(folder: Path, template: str, key: str) -> list[tuple[dict[str, str], Path]]:
    """The files below ``folder`` that a template names, with the value of each field; raises UserError."""
    fields = FIELD.findall(template)
    unknown = [field for field in fields if field not in FIELDS]
    if unknown or "case" not in fields:
        said = f"{{{unknown[0]}}} is unknown" if unknown else "has no {case}"
        raise UserError(f"{key}={template}: {said}", f"a template may hold {', '.join('{' + f + '}' for f in FIELDS)}")
    inside(folder, FIELD.sub("x", template), key)
    pattern, seen = "", set()
    for number, part in enumerate(FIELD.split(template)):
        if number % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in seen else f"(?P<{part}>[^/]+)"
            seen.add(part)
    whole = re.compile(pattern)
    wanted = re.sub(r"[\[\]*?]", "?", template)
    found = []
    for path in sorted(folder.glob(FIELD.sub("*", wanted))):
        match = whole.fullmatch(path.relative_to(folder).as_posix())
        if match is not None:
            found.append((match.groupdict(), path))
    return found
