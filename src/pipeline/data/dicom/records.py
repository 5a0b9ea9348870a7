"""What an import has finished, so that the next one goes on from there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.data.dicom.cases import CasePlan
from pipeline.data.dicom.convert import Converted
from pipeline.data.dicom.settings import DicomSettings
from pipeline.errors import UserError

VERSION = 1  # of the conversion: a change in it converts everything again
RECORDS = ".import.jsonl"
LOCK = ".import.lock"


class Records:
    """A file of JSON lines, one per finished case. It holds hashes of the DICOM files' paths, never the paths."""

    def __init__(self, output: Path) -> None:
        self.path = output / RECORDS
        self.known: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    entry = json.loads(line)
                    self.known[str(entry["case_id"])] = entry

    def recall(self, case_id: str, key: str, output: Path) -> Converted | None:
        """A finished case of the same key whose files are all there with the size they were written with."""
        entry = self.known.get(case_id)
        if entry is None or entry.get("key") != key:
            return None
        try:
            whole = all((output / name).stat().st_size == size for name, size in entry["files"].items())
            return Converted(case_id, dict(entry["row"]), list(entry["files"]), list(entry["notes"])) if whole else None
        except (OSError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, key: str, result: Converted, output: Path) -> None:
        """Remember a case whose files are written."""
        files = {name: (output / name).stat().st_size for name in result.files}
        entry = {"case_id": result.case_id, "key": key, "files": files, "row": result.row, "notes": result.notes}
        self.known[result.case_id] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def forget(self, current: set[str], files: set[str], output: Path) -> int:
        """Delete the files of cases that are no longer ``current`` and not among ``files``; how many cases went."""
        gone = [case_id for case_id in self.known if case_id not in current]
        for case_id in gone:
            for name in self.known.pop(case_id).get("files", {}):
                path = (output / name).resolve()
                if name not in files and path.is_relative_to(output.resolve()):
                    path.unlink(missing_ok=True)
        partial = self.path.with_name(f"{RECORDS}.partial")
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in self.known.values()), encoding="utf-8")
        partial.replace(self.path)
        return len(gone)


def key_of(plan: CasePlan, classes: Mapping[str, str], values: Mapping[str, int], settings: DicomSettings) -> str:
    """A hash of all that shapes the output of a case: its files by path, size and time of change, and the settings."""
    masks = {name for mask in plan.masks for name in mask.names}
    said = {
        "version": VERSION,
        "files": {name: [_state(i) for i in series] for name, series in plan.images.items()},
        "masks": [_state(instance) for instance in plan.masks],
        "classes": sorted((roi, name, values[name]) for roi, name in classes.items() if roi in masks) if masks else [],
        "order": list(values.values()) if masks else [],
        "names": [plan.case_id, plan.patient_id, plan.series, plan.outlined],
        "settings": {
            key: value for key, value in asdict(settings).items() if key in ("tolerance", "max_voxels", "absent")
        },
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _state(instance: Any) -> list[str | int]:
    return [str(instance.path), instance.size, instance.modified]


def identity(files: Sequence[Path], said: Mapping[str, Any]) -> str:
    """A hash of the paths, sizes and times of change of files, and of ``said``."""
    digest = hashlib.sha256(json.dumps([VERSION, said], sort_keys=True, default=str).encode())
    for path in files:
        try:
            status = path.stat()
            digest.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape"))
        except OSError:
            digest.update(f"\0{path}\0-".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@contextlib.contextmanager
def locked(output: Path) -> Iterator[None]:
    """Only one process at a time imports into a folder; others wait. Raises UserError where it cannot be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (output / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})", "name another folder") from error
