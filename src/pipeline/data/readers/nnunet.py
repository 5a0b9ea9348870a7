"""nnU-Net raw data sets (Isensee et al. 2021): dataset.json, imagesTr/CASE_0000.EXT per channel, labelsTr/CASE.EXT."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.case import Case, Dataset, FileSource, TaskKind
from pipeline.data.image_io import SUFFIXES, ImageError, read_header
from pipeline.data.readers.nnunet_labels import labels_of
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
from pipeline.errors import UserError
from pipeline.json_file import read_json

INDEX = "dataset.json"
CHANNEL = re.compile(r"(.+)_(\d{4})")


def read_nnunet(
    *,
    name: str | None = None,
    root: str | Path | None,
    task_kind: TaskKind = "segmentation",
    labels: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    task: str | None = None,
    patient_pattern: str | None = None,
    allow_outside: bool = False,
) -> Dataset:
    """The training cases of an nnU-Net v2 raw folder; each channel is a modality named by ``channel_names``.

    ``root``: the folder that holds dataset.json, or the folder ``task`` that does. Cases are those of its mapping
    ``dataset`` (whose paths may leave the folder with ``allow_outside``), else the files of imagesTr; a channel or mask
    whose file is absent is missing. ``labels``: in the place of those of dataset.json, its regions and ignore label.
    ``patient_pattern``: regular expression on the case name whose first group is the patient; None: each case is one.
    Raises UserError.
    """
    if task_kind != "segmentation":
        raise UserError(
            "data.format=nnunet has masks and no classes; task=classification needs a target per case",
            "list the cases with their target in a table: data=table",
        )
    folder = require_root(root)
    if task is not None and not (folder / INDEX).is_file() and (folder / task).is_dir():
        folder = folder / task
    index = require_file(folder, INDEX, "the description of an nnU-Net data set")
    described = _read_description(index)
    declared = labels_of(described, index, labels)
    channels = _channels(described, index)
    ending = described.get("file_ending")
    if ending not in SUFFIXES:
        raise UserError(f"{index}: file_ending is {ending!r}", f"one of {', '.join(SUFFIXES)}")
    layout = _Layout(folder, index, channels, str(ending), allow_outside)
    mapping = described.get("dataset")
    found, notes = layout.listed(mapping) if mapping is not None else layout.scanned()

    modalities, found = _one_file_of_colours(channels, found)
    find_patient = patient_finder(patient_pattern)
    cases = [
        Case(case_id, find_patient(case_id), {name: images[name] for name in modalities if name in images}, label)
        for case_id, (images, label) in found.items()
    ]
    require_case_ids((case.case_id for case in cases), str(index))
    count = described.get("numTraining")
    if count is not None and count != len(cases):
        raise UserError(
            f"{index}: numTraining is {count}, but the number of training cases is {len(cases)}",
            "restore the missing files, or correct the count",
        )
    found_dims, found_channels = probe(cases, modalities)
    return Dataset(
        name=name or str(described.get("name") or folder.name),
        root=folder,
        task="segmentation",
        cases=tuple(cases),
        modalities=modalities,
        labels=declared,
        classes=(),
        spatial_dims=spatial_dims or found_dims,
        notes=tuple(notes),
        channels=found_channels,
        index=index,
    )


Found = dict[str, tuple[dict[str, FileSource], FileSource | None]]
"""Case -> images by channel name, and the mask."""


@dataclass(frozen=True)
class _Layout:
    """Where the files of a data set are."""

    folder: Path
    index: Path
    channels: tuple[str, ...]
    ending: str
    allow_outside: bool

    def scanned(self) -> tuple[Found, list[str]]:
        """Cases from the names in imagesTr, and notes on what is left out."""
        images = self.folder / "imagesTr"
        names = self._files(images)
        masks = set(self._files(self.folder / "labelsTr"))
        wanted = sorted(name for name in names if name.endswith(self.ending))
        if not wanted:
            said = f"holds {listed(sorted(names))}" if names else "holds no image"
            raise UserError(f"{images}: no file ends in {self.ending} (file_ending in {INDEX}); it {said}")
        found: Found = {}
        mistakes = []
        for name in wanted:
            match = CHANNEL.fullmatch(name[: -len(self.ending)])
            if match is None:
                fault = f"{images / name}: no channel number, as in CASE_0000{self.ending}"
                mistakes.append(UserError(fault, "rename it, or move it elsewhere"))
            elif int(match.group(2)) >= len(self.channels):
                fault = f"{images / name}: channel {match.group(2)}, but channel_names has {len(self.channels)}"
                mistakes.append(UserError(fault, f"name the channel in {self.index}, or move the file elsewhere"))
            else:
                case_id = match.group(1)
                mask = case_id + self.ending
                label = FileSource(self.folder / "labelsTr" / mask) if mask in masks else None
                entry = found.setdefault(case_id, ({}, label))
                entry[0][self.channels[int(match.group(2))]] = FileSource(images / name)
        raise_all(mistakes)
        notes = []
        if len(wanted) < len(names):
            notes.append(f"{len(names) - len(wanted)} images of imagesTr do not end in {self.ending} and are left out")
        lost = sorted(mask for mask in masks if mask.removesuffix(self.ending) not in found)
        if lost:
            notes.append(f"{len(lost)} masks of labelsTr have no image: {listed(lost)}")
        return found, notes

    def listed(self, mapping: Any) -> tuple[Found, list[str]]:
        """Cases from the mapping ``dataset`` of dataset.json."""
        if not isinstance(mapping, dict) or not mapping:
            raise UserError(f"{self.index}: dataset is no mapping from cases to {{images: [...], label: ...}}")
        found: Found = {}
        mistakes = []
        for case_id, entry in mapping.items():
            origin = f"{self.index}: dataset.{case_id}"
            images = entry.get("images") if isinstance(entry, dict) else None
            label = entry.get("label") if isinstance(entry, dict) else None
            try:
                if not isinstance(images, list) or not all(isinstance(path, str) for path in (*images, label)):
                    raise UserError(f"{origin} is not of the form {{images: [...], label: ...}}")
                if len(images) not in (1, len(self.channels)):
                    raise UserError(f"{origin} has {len(images)} images, channel_names has {len(self.channels)}")
                named = zip(self.channels, images, strict=False)
                found[case_id] = (
                    {name: self._source(path, origin) for name, path in named},
                    self._source(label, origin),
                )
            except UserError as error:
                mistakes.append(error)
        raise_all(mistakes)
        return found, []

    def _source(self, name: Any, origin: str) -> FileSource:
        return FileSource(inside(self.folder, name, origin, allow_outside=self.allow_outside))

    def _files(self, folder: Path) -> list[str]:
        if not folder.is_dir():
            raise UserError(f"{folder}: folder not found", f"{self.folder} holds {listed(_names(self.folder))}")
        return [name for name in _names(folder) if name.lower().endswith(SUFFIXES)]


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _one_file_of_colours(channels: tuple[str, ...], found: Found) -> tuple[tuple[str, ...], Found]:
    """Where each case has one file that holds all channels (a colour picture), one modality of them."""
    if len(channels) == 1 or any(set(images) != {channels[0]} for images, _ in found.values()):
        return channels, found
    first = next(iter(found.values()))[0][channels[0]]
    try:
        together = read_header(first).channels == len(channels)
    except ImageError:
        together = False
    if not together:
        return channels, found
    return ("image",), {case: ({"image": images[channels[0]]}, label) for case, (images, label) in found.items()}


def _channels(described: Mapping[str, Any], index: Path) -> tuple[str, ...]:
    """Channel names in the order of their numbers; those that stand twice carry their number."""
    given = described.get("channel_names", described.get("modality"))
    remedy = 'write it as {"0": "CT", "1": "PET"}'
    if not isinstance(given, dict) or not given:
        raise UserError(f"{index}: channel_names is {given!r}", remedy)
    numbers = [str(number) for number in range(len(given))]
    if sorted(given) != sorted(numbers):
        raise UserError(f"{index}: channel_names numbers {listed(sorted(given))}, not 0 to {len(given) - 1}", remedy)
    names = [str(given[number]) for number in numbers]
    return tuple(_distinct(names))


def _distinct(names: list[str]) -> Iterable[str]:
    for number, name in enumerate(names):
        yield f"{name}_{number}" if names.count(name) > 1 else name


def _read_description(index: Path) -> dict[str, Any]:
    try:
        described: Any = read_json(index)
    except ValueError as error:
        raise UserError(f"{index}: no valid JSON ({error})", "copy or write it again") from None
    except OSError as error:
        raise UserError(f"{index}: cannot be read ({error.strerror})") from None
    if not isinstance(described, dict):
        raise UserError(f"{index}: no JSON object")
    return described
