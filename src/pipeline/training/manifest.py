"""Which files a run read: path, sha256, patient and folds of every case, in ``manifest.csv``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.case import Dataset
from pipeline.data.folds import Fold
from pipeline.data.integrity import CheckResult
from pipeline.errors import UserError

MANIFEST_FILE = "manifest.csv"
COLUMNS = ("case_id", "patient_id", "folds", "path", "sha256")
SHOWN = 10


@dataclass(frozen=True)
class Manifest:
    """Rows in the order of the cases; ``folds``: in which the case is validated; ``path``: from the data set's root."""

    rows: tuple[tuple[str, ...], ...]

    def write(self, folder: Path) -> None:
        """Write ``manifest.csv``, whole or not at all."""
        partial = folder / f".{MANIFEST_FILE}.partial"
        with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as handle:
            csv.writer(handle).writerows([COLUMNS, *self.rows])
        partial.replace(folder / MANIFEST_FILE)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read ``manifest.csv``; raises UserError."""
        path = folder / MANIFEST_FILE
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
                header, *rows = csv.reader(handle)
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing, so the data cannot be compared") from error
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: not readable: {error}") from error
        if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
            raise UserError(f"{path}: not a manifest, its columns are not {', '.join(COLUMNS)}")
        return cls(tuple(tuple(row) for row in rows))

    def require_same(self, now: Manifest, of: Path) -> None:
        """Raise UserError, naming the cases, where files or folds ``now`` are not those of the run in ``of``."""
        before, after = self._by_file(), now._by_file()
        lines = [f"{case}: {path} is not there any more" for case, path in before if (case, path) not in after]
        lines += [f"{case}: {path} is new" for case, path in after if (case, path) not in before]
        for key in before.keys() & after.keys():
            (patient, folds, digest), (patient_now, folds_now, digest_now) = before[key], after[key]
            if digest != digest_now:
                lines.append(f"{key[0]}: {key[1]} has other content")
            elif (patient, folds) != (patient_now, folds_now):
                lines.append(f"{key[0]}: patient {patient}, fold {folds} then; patient {patient_now}, fold {folds_now}")
        if lines:
            lines = sorted(set(lines))
            more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
            raise UserError(f"{of}: {len(lines)} file(s) of the data or folds changed since", *lines[:SHOWN], *more)

    def _by_file(self) -> dict[tuple[str, str], tuple[str, str, str]]:
        return {(case, path): (patient, folds, digest) for case, patient, folds, path, digest in self.rows}


def manifest_of(dataset: Dataset, folds: Sequence[Fold], checked: CheckResult) -> Manifest:
    """The manifest of a checked data set."""
    held_out: dict[str, list[str]] = {}
    for fold in folds:
        for case_id in fold.validation:
            held_out.setdefault(case_id, []).append(str(fold.index))
    rows = [
        (case.case_id, case.patient_id, " ".join(held_out.get(case.case_id, [])), path, digest)
        for case in dataset.cases
        for path, digest in checked.records[case.case_id].sha256.items()
    ]
    return Manifest(tuple(rows))
