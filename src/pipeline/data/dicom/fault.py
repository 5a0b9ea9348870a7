"""What is wrong with a series, in a form that crosses processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason why a series was refused. ``series``: its SeriesInstanceUID, or what else names it."""

    series: str
    file: str
    fault: str
    remedy: str

    def error(self) -> UserError:
        """The fault as a mistake to report."""
        return UserError(f"{self.file}: {self.fault} (series {self.series})", *([self.remedy] if self.remedy else []))


class DicomError(Exception):
    """A DICOM file that cannot be used; becomes a Fault where the series is known."""

    def __init__(self, path: Path, fault: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {fault}")
        self.path = path
        self.fault = fault
        self.remedy = remedy

    def of(self, series: str) -> Fault:
        """The fault of a series."""
        return Fault(series, str(self.path), self.fault, self.remedy)
