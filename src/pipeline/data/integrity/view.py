"""A data set with the readings of its files: what every rule looks at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from pipeline.data.case import Case, Dataset, FileSource, Source
from pipeline.data.image_io.image import spacing_of
from pipeline.data.integrity.reading import Job, Reading, Role, reading_of
from pipeline.data.integrity.result import CheckSettings, Fault, Severity

TELLING = 64  # different values of an image that make its voxels known in any order


@dataclass(frozen=True)
class View:
    """All that rules need: the cases, the limits and the readings by job."""

    dataset: Dataset
    settings: CheckSettings
    readings: Mapping[Job, list[Reading]]

    @cached_property
    def inspected(self) -> dict[str, list[tuple[Source, Role, Reading]]]:
        """Every file of each case with its reading, the mask last."""
        found = {}
        for case in self.dataset.cases:
            sources = [(source, self._reading(source, "image")) for source in case.images.values()]
            files: list[tuple[Source, Role, Reading]] = [(source, "image", reading) for source, reading in sources]
            if case.label is not None:
                files.append((case.label, "mask", self._reading(case.label, "mask")))
            found[case.case_id] = files
        return found

    def sources(self, case: Case) -> list[tuple[Source, Role, Reading]]:
        """Every file of a case with its reading, the mask last."""
        return self.inspected[case.case_id]

    def _reading(self, source: Source, role: Role) -> Reading:
        return reading_of(self.readings[Job.of(source, role)], source)

    def images(self, case: Case) -> list[tuple[Source, Reading]]:
        """The images of a case that can be read."""
        return [
            (source, reading) for source, role, reading in self.sources(case) if role == "image" and not reading.fault
        ]

    @cached_property
    def by_modality(self) -> dict[str, list[tuple[Case, Source, Reading]]]:
        """The images that can be read, with their cases, by modality."""
        found: dict[str, list[tuple[Case, Source, Reading]]] = {name: [] for name in self.dataset.modalities}
        for case in self.dataset.cases:
            for name, source in case.images.items():
                reading = self._reading(source, "image")
                if reading.fault is None:
                    found.setdefault(name, []).append((case, source, reading))
        return found

    def content(self, source: Source, reading: Reading) -> str:
        """What two sources share whose voxels are identical, mirrored or turned; of images with few values the order
        of the voxels counts, as their number alone says little."""
        voxels = self._voxels(source)
        alike = "" if voxels is None else voxels.bag if reading.distinct >= TELLING else voxels.content
        return reading.content or alike or reading.sha256

    def turned(self, source: Source, other: Source) -> bool:
        """Whether the voxels of two sources stand in different orders."""
        voxels = self._voxels(source), self._voxels(other)
        return voxels[0] is not None and voxels[1] is not None and voxels[0].content != voxels[1].content

    def _voxels(self, source: Source) -> Reading | None:
        found = self.readings.get(Job(source.path, "voxels")) if isinstance(source, FileSource) else None
        return found[0] if found else None

    def sha256(self, source: Source) -> str:
        """The hash of the file of an image."""
        return self._reading(source, "image").sha256

    def mask(self, case: Case) -> Reading | None:
        """The mask of a case if it has one that can be read."""
        _, role, reading = self.sources(case)[-1]
        return reading if role == "mask" and reading.fault is None else None

    @cached_property
    def masks(self) -> list[tuple[Case, Source, Reading]]:
        """The masks that can be read, with their cases."""
        return [
            (case, case.label, reading)
            for case in self.dataset.cases
            if case.label is not None and (reading := self.mask(case)) is not None
        ]

    def shown(self, source: Source) -> str:
        """A file as users know it: relative to the root."""
        shown = self.relative(source.path)
        return shown if isinstance(source, FileSource) else shown[: -len(source.path.name)] + source.name

    def relative(self, path: Path) -> str:
        """A path relative to the root where it lies inside."""
        name = str(path)
        return name[len(self._inside) :] if name.startswith(self._inside) else name

    @cached_property
    def _inside(self) -> str:
        return str(self.dataset.root).rstrip("/\\") + os.sep

    @property
    def index(self) -> str:
        """The file that lists the cases, for faults of the whole data set."""
        return self.relative(self.dataset.index) if self.dataset.index else str(self.dataset.root)

    def fault(self, severity: Severity, case: Case, source: Source, text: str, remedy: str, rule: str) -> Fault:
        """A fault of one file of a case."""
        return Fault(severity, case.case_id, self.shown(source), text, remedy, rule)

    def dataset_fault(self, severity: Severity, text: str, remedy: str, rule: str) -> Fault:
        """A fault of the data set as a whole."""
        return Fault(severity, None, self.index, text, remedy, rule)


def affine_of(reading: Reading) -> np.ndarray:
    """The affine of a reading, (4, 4)."""
    return np.array(reading.affine).reshape(4, 4)


@lru_cache(maxsize=4096)
def _spacing(affine: tuple[float, ...], dims: int) -> tuple[float, ...]:
    return spacing_of(np.array(affine).reshape(4, 4), dims)


def voxel_size(reading: Reading) -> tuple[float, ...]:
    """Size of a voxel along each axis, in mm."""
    return _spacing(reading.affine, len(reading.shape))


def foreground_voxels(view: View, reading: Reading) -> dict[str, int]:
    """Voxels of a mask by class name, the background included; undeclared values are left out."""
    labels = view.dataset.labels
    counts = dict.fromkeys(labels.names, 0) if labels else {}
    for value, count in (reading.values or {}).items():
        if labels and value in labels.values:
            counts[labels.values[value]] += count
    return counts
