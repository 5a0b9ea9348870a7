"""What every reader yields: cases of a data set, whatever the format on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.data.labels import Labels

__all__ = ["ArraySource", "Case", "Dataset", "FileSource", "Labels", "Source", "TaskKind"]

TaskKind = Literal["segmentation", "classification"]


@dataclass(frozen=True, slots=True)
class FileSource:
    """One image file."""

    path: Path

    @property
    def name(self) -> str:
        """The file name shown to users."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class ArraySource:
    """One image inside an .npz: entry ``index`` along the first axis of array ``key``."""

    path: Path
    key: str
    index: int

    @property
    def name(self) -> str:
        """The file name shown to users, with the place inside the file."""
        return f"{self.path.name}:{self.key}[{self.index}]"


Source = FileSource | ArraySource


@dataclass(frozen=True, slots=True)
class Case:
    """One image (or several modalities of it) with what is known about it.

    ``images``: by modality, in the data set's order; a modality that this case lacks is absent. ``label`` is the
    mask, ``target`` the class name; None means not given. ``labels_present``: the classes (or regions) that the mask
    of this case annotates, None for all; what it leaves out may be there all the same.
    """

    case_id: str
    patient_id: str
    images: Mapping[str, Source]
    label: Source | None = None
    target: str | None = None
    site: str | None = None
    fold: int | None = None
    split: str | None = None
    labels_present: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Dataset:
    """Cases and what their voxels mean.

    ``classes``: class names of classification in the order of the network's outputs, else empty.
    ``channels``: input channels of a case, all modalities together.
    ``notes``: lines to log, such as how many cases were dropped.
    ``index``: the file that lists the cases.
    """

    name: str
    root: Path
    task: TaskKind
    cases: tuple[Case, ...]
    modalities: tuple[str, ...]
    labels: Labels | None
    classes: tuple[str, ...]
    spatial_dims: int
    notes: tuple[str, ...] = ()
    channels: int = 1
    index: Path | None = None
    patients: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patients", tuple(dict.fromkeys(case.patient_id for case in self.cases)))

    @property
    def output_classes(self) -> tuple[str, ...]:
        """Names of the network's outputs: regions, or label names with the background, or classes."""
        return self.labels.outputs if self.labels is not None else self.classes
