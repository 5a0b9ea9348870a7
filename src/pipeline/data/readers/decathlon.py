"""Folders of the Medical Segmentation Decathlon: dataset.json, imagesTr, labelsTr (Simpson 2019, arXiv 1902.09063)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.archive import extract
from pipeline.data.case import Case, Dataset, FileSource, TaskKind
from pipeline.data.image_io import ImageError, stem_of
from pipeline.data.labels import Labels, parse_labels
from pipeline.data.readers import nnunet_labels
from pipeline.data.readers.sources import (
    inside,
    nearest,
    patient_finder,
    probe,
    raise_all,
    require_case_ids,
    require_file,
    require_root,
)
from pipeline.errors import UserError
from pipeline.json_file import read_json

INDEX = "dataset.json"


def read_decathlon(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind = "segmentation",
    labels: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    task: str | None = None,
    download: bool = False,
    patient_pattern: str | None = None,
) -> Dataset:
    """The training cases of a Decathlon folder; a case is named after its image.

    ``root``: the folder that holds dataset.json, or the folder ``task`` that does. ``labels``: as in dataset.json
    where None. ``download``: fetch ``task`` into ``root`` unless it is there, with checksum, through MONAI.
    ``patient_pattern``: regular expression on the case name whose first group is the patient; None: each case is one.
    Several channels stand in one 4D image, as the Decathlon has them. Raises UserError.
    """
    if task_kind != "segmentation":
        raise UserError(
            "data.format=decathlon has masks and no classes; task=classification needs a target per case",
            "list the cases with their target in a table: data=table",
        )
    if download:
        fetch(task, root)
    folder = require_root(root)
    if task is not None and not (folder / INDEX).is_file() and (folder / task).is_dir():
        folder = folder / task
    index = require_file(folder, INDEX, "the list of a Decathlon data set")
    listing = read_listing(index)
    declared = parse_labels(labels, "data.labels") if labels is not None else labels_of(listing, index)
    channels = listing.get("modality", listing.get("channel_names"))
    if channels is not None and not (isinstance(channels, dict) and channels):
        raise UserError(f"{index}: modality is {channels!r}", 'write it as {"0": "CT"}')

    find_patient = patient_finder(patient_pattern)
    modality = str(next(iter(channels.values()))) if channels and len(channels) == 1 else "image"
    cases: list[Case] = []
    mistakes: list[UserError] = []
    for number, entry in enumerate(listing["training"]):
        origin = f"{index}: training entry {number}"
        try:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
                raise UserError(f"{origin} is not of the form {{image: ..., label: ...}}")
            image = FileSource(inside(folder, entry["image"], origin))
            case_id = stem_of(image.path)
            label = FileSource(inside(folder, entry["label"], origin))
            cases.append(Case(case_id, find_patient(case_id), {modality: image}, label))
        except ImageError as error:
            mistakes.append(UserError(f"{origin}: {error.cause}", *error.remedies))
        except UserError as error:
            mistakes.append(error)
    raise_all(mistakes)
    require_no_test(listing, index)
    require_case_ids((case.case_id for case in cases), str(index))
    found_dims, found_channels = probe(cases)
    return Dataset(
        name=name or str(listing.get("name") or folder.name),
        root=folder,
        task="segmentation",
        cases=tuple(cases),
        modalities=(modality,),
        labels=declared,
        classes=(),
        spatial_dims=spatial_dims or found_dims,
        channels=len(channels) if channels else found_channels,
        index=index,
    )


def read_listing(index: Path) -> dict[str, Any]:
    """The content of a dataset.json with at least one training entry and the right count; raises UserError."""
    try:
        listing: Any = read_json(index)
    except ValueError as error:
        raise UserError(f"{index}: no valid JSON ({error})", "copy or write it again") from None
    except OSError as error:
        raise UserError(f"{index}: cannot be read ({error.strerror})") from None
    listing = listing if isinstance(listing, dict) else {}
    training = listing.get("training")
    if not isinstance(training, list):
        raise UserError(f"{index}: has no list `training` of {{image, label}} entries")
    if not training:
        raise UserError(f"{index}: the list of training cases is empty")
    count = listing.get("numTraining")
    if count is not None and count != len(training):
        raise UserError(
            f"{index}: numTraining is {count}, but the number of training entries is {len(training)}",
            "complete the list, or correct the count",
        )
    return dict(listing)


def labels_of(listing: Mapping[str, Any], index: Path) -> Labels:
    """The labels that a dataset.json declares, as value -> name or, as nnU-Net has them, as name -> value.

    Raises UserError.
    """
    if "labels" not in listing:
        raise UserError(
            f"{index}: declares no labels", "declare them there or in 'data.labels={0: background, 1: ...}'"
        )
    given = listing["labels"]
    if isinstance(given, dict) and given and all(isinstance(value, int | list) for value in given.values()):
        return nnunet_labels.labels_of(listing, index, None)
    return parse_labels(given, f"{index}: labels")


def require_no_test(listing: Mapping[str, Any], index: Path) -> None:
    """Raise UserError(s) for cases that are listed for training and for the test as well."""
    tests = listing.get("test")
    entries = [entry.get("image") if isinstance(entry, dict) else entry for entry in tests or ()]
    held = {PurePosixPath(entry) for entry in entries if isinstance(entry, str)}
    raise_all(
        [
            UserError(f"{index}: {entry['image']} is listed for training and for the test as well", "take one out")
            for entry in listing["training"]
            if isinstance(entry, dict) and PurePosixPath(str(entry.get("image"))) in held
        ]
    )


def fetch(task: str | None, root: str | Path | None) -> None:
    """Download and unpack a Decathlon task into ``root`` unless it is there; the archive's MD5 is verified.

    The archive stays beside the folder; one that is there already is not downloaded again.
    """
    if root is None:
        raise UserError("data.download=true needs data.root, the folder to download to")
    folder = Path(root).expanduser().absolute()
    if any((place / INDEX).is_file() for place in (folder, folder / str(task))):
        return
    from monai.apps.datasets import DecathlonDataset
    from monai.apps.utils import download_url

    if task not in DecathlonDataset.resource:
        near = nearest(str(task), DecathlonDataset.resource)
        raise UserError(
            f"data.task={task}: no task of the Decathlon",
            f"did you mean {near[0]}?" if near else f"one of {', '.join(DecathlonDataset.resource)}",
        )
    archive = folder / f"{task}.tar"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download_url(
            url=DecathlonDataset.resource[task],
            filepath=archive,
            hash_val=DecathlonDataset.md5[task],
            hash_type="md5",
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{archive}: download of {task} failed ({error})",
            "try again later, or download it yourself and set data.root to its folder",
        ) from None
    extract(archive, folder / task)
