"""What a check found: faults, and a record of every case."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from pipeline.data.case import Dataset
from pipeline.errors import UserError, UserErrors

Severity = Literal["error", "warning"]
SHOWN = 20  # faults listed when a check stops a run


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong (error) or may be wrong (warning).

    ``case_id``: None where the whole data set is meant. ``file``: relative to the data set's root. ``rule``: short
    name of the rule that found it.
    """

    severity: Severity
    case_id: str | None
    file: str
    fault: str
    remedy: str
    rule: str


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """Limits of the rules, and what the data will be used for.

    ``folds``: number of cross-validation folds; None: not split. ``predefined``: whether the split column decides.
    ``affine_tolerance_mm``: how far apart a voxel of the image and of its mask may lie.
    ``fewest_foreground_voxels``: a smaller foreground is taken for a slip. ``intensity_factor``: how many times an
    image's intensity range may differ from the median range of its modality; ``air_shift_hu``: how far the darkest
    voxels of a CT may lie from those of most; ``saturated_fraction``: share of voxels that may be at the maximum.
    ``inverted_correlation``: a 2D image that correlates less with the mean image is taken for a negative.
    ``spacing_factor``: how many times a voxel's size or an image's
    extent along an axis may differ from the median. ``near_duplicate_bits``: perceptual hashes of 2D images that
    differ in at most so many of 255 bits are near duplicates, up to 15; None: not looked for. ``misfit``: how much
    more of an image's variance a mirrored mask must explain to be reported, 0 to 1. ``missing_*``: what data.missing
    says about absent modalities, voxels that are no numbers, and absent targets. ``allow_outside``: whether files may
    lie outside the data set's folder.
    """

    folds: int | None = 5
    predefined: bool = False
    affine_tolerance_mm: float = 1e-4
    fewest_foreground_voxels: int = 5
    intensity_factor: float = 15.0
    air_shift_hu: float = 500.0
    saturated_fraction: float = 0.5
    inverted_correlation: float = -0.65
    spacing_factor: float = 8.0
    near_duplicate_bits: int | None = 14
    misfit: float = 0.25
    missing_modality: str = "error"
    missing_voxels: str = "error"
    missing_target: str = "error"
    allow_outside: bool = False


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """What is known about one case after its files were read to their end.

    ``shape``: voxels; ``spacing``: mm; ``intensity``: lowest and highest voxel of all its images; ``sha256``: of each
    file, by path relative to the root; ``class_voxels``: by class name, the background included, or empty.
    """

    case_id: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    intensity: tuple[float, float]
    sha256: Mapping[str, str]
    class_voxels: Mapping[str, int]

    @property
    def voxel_mm(self) -> float:
        """Volume of a voxel in mm^3 (area in mm^2 in 2D)."""
        volume = 1.0
        for length in self.spacing:
            volume *= length
        return volume


@dataclass(frozen=True)
class CheckResult:
    """Faults and records; a case that could not be read has no record.

    ``duplicates``: groups of case ids with identical images. ``read`` and ``remembered``: files read now, and files
    whose reading was known from before. ``data_hash``: SHA-256 over all files of all cases.
    """

    faults: tuple[Fault, ...]
    records: Mapping[str, CaseRecord]
    duplicates: tuple[tuple[str, ...], ...]
    read: int
    remembered: int
    seconds: float

    @property
    def errors(self) -> tuple[Fault, ...]:
        """Faults that forbid training."""
        return tuple(fault for fault in self.faults if fault.severity == "error")

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """Faults that may be right."""
        return tuple(fault for fault in self.faults if fault.severity == "warning")

    @property
    def data_hash(self) -> str:
        """SHA-256 over case ids and the content of their files, whatever the order of the cases."""
        digest = hashlib.sha256()
        for case_id in sorted(self.records):
            for name, sha256 in sorted(self.records[case_id].sha256.items()):
                digest.update(f"{case_id}\0{name}\0{sha256}\n".encode())
        return digest.hexdigest()

    def raise_errors(self) -> None:
        """Raise UserErrors with the first errors, if there are any."""
        found = [UserError(f"{fault.file}: {fault.fault}", fault.remedy) for fault in self.errors]
        if found:
            more = len(found) - SHOWN
            rest = [UserError(f"... and {more} more", "run the check command for the whole list")] if more > 0 else []
            raise UserErrors([*found[:SHOWN], *rest])

    def foreground(self, dataset: Dataset) -> dict[str, float]:
        """Volume in mm^3, by case, of the class with the smallest volume in the whole data set.

        The rarest class is the one that folds should share evenly; it is not hidden behind large organs.
        """
        if dataset.labels is None:
            return {}
        totals = {
            name: sum(record.class_voxels.get(name, 0) * record.voxel_mm for record in self.records.values())
            for name in dataset.labels.foreground
        }
        present = {name: total for name, total in totals.items() if total > 0}
        if not present:
            return {}
        rarest = min(present, key=present.__getitem__)
        return {
            case_id: record.class_voxels.get(rarest, 0) * record.voxel_mm for case_id, record in self.records.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Plain containers for check.json."""
        return {
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "cases": len(self.records),
            "data_hash": self.data_hash,
            "seconds": round(self.seconds, 3),
            "faults": [_fields(fault) for fault in self.faults],
            "duplicates": [list(group) for group in self.duplicates],
            "records": [_fields(record) for record in self.records.values()],
        }


def _fields(found: Fault | CaseRecord) -> dict[str, Any]:
    """As dataclasses.asdict, without its deep copies."""
    return {field.name: getattr(found, field.name) for field in fields(found)}
