"""Whether a run that was repeated gave the same: weights, the course of training, every case, the summary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.evaluation.cases import CASES_FILE, read_cases
from pipeline.evaluation.summary import comparable
from pipeline.json_file import read_json
from pipeline.training.fold import FittedFold
from pipeline.training.run_folder import SUMMARY_FILE

SHOWN = 20  # differing numbers in the printed table
CLOCK = ("seconds",)  # columns of metrics.csv


@dataclass(frozen=True)
class Difference:
    """One value that differs; ``by`` is None for what is no number."""

    what: str
    then: str
    now: str
    by: float | None


@dataclass(frozen=True)
class Comparison:
    """What was compared, and what differs by more than ``tolerance``."""

    tolerance: float
    compared: Mapping[str, int]  # kind -> how many values
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    @property
    def greatest(self) -> float:
        """The greatest difference of a number."""
        return max((entry.by for entry in self.differences if entry.by is not None), default=0.0)

    def line(self) -> str:
        """The result in one line."""
        counted = ", ".join(f"{count} {kind}" for kind, count in self.compared.items())
        if self.same:
            within = "identical" if self.tolerance == 0 else f"the same within {self.tolerance:g}"
            return f"{within}: {counted}"
        return (
            f"different: {len(self.differences)} of {counted}; the greatest difference of a number is {self.greatest:g}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "same": self.same,
            "tolerance": self.tolerance,
            "compared": dict(self.compared),
            "greatest": self.greatest,
            "differences": [asdict(entry) for entry in self.differences],
        }


def compare_runs(before: Path, after: Path, tolerance: float) -> Comparison:
    """Compare the run in ``after`` with that in ``before``; raises UserError where the first lacks its results."""
    compared: dict[str, int] = {}
    found: list[Difference] = []
    kinds: dict[str, Iterator[Difference | None]] = {
        "weights": _weights(before, after) if tolerance == 0 else iter(()),
        "values of training": _courses(before, after, tolerance),
        "values of cases": _cases(before, after, tolerance),
        "values of the summary": _summaries(before, after, tolerance),
    }
    for kind, entries in kinds.items():
        for entry in entries:
            compared[kind] = compared.get(kind, 0) + 1
            if entry is not None:
                found.append(entry)
    return Comparison(tolerance, compared, tuple(found))


def _weights(before: Path, after: Path) -> Iterator[Difference | None]:
    for folder in sorted(before.glob("fold_*")):
        then, now = FittedFold.read(folder), FittedFold.read(after / folder.name)
        if then is None:
            continue
        for name, digest in then.weights.items():
            other = "absent" if now is None else now.weights.get(name, "absent")
            same = digest == other
            yield None if same else Difference(f"{folder.name}: weights of {name}", digest[:12], other[:12], None)


def _courses(before: Path, after: Path, tolerance: float) -> Iterator[Difference | None]:
    for path in sorted(before.glob("fold_*/metrics.csv")):
        then, other = pd.read_csv(path), after / path.parent.name / path.name
        now = pd.read_csv(other) if other.is_file() else then.iloc[:0]
        yield from _tables(path.parent.name, then, now, ["epoch"], tolerance)


def _cases(before: Path, after: Path, tolerance: float) -> Iterator[Difference | None]:
    path = before / CASES_FILE
    if not path.is_file():
        raise UserError(f"{path}: missing, so there is nothing to compare with", "was the run trained to its end?")
    then, now = read_cases(path), read_cases(after / CASES_FILE)
    yield from _tables(
        CASES_FILE, then, now, [name for name in ("fold", "case_id", "class") if name in then], tolerance
    )


def _tables(
    name: str, then: pd.DataFrame, now: pd.DataFrame, index: list[str], tolerance: float
) -> Iterator[Difference | None]:
    """Cell by cell, rows matched by ``index``."""
    rows = {tuple(row[key] for key in index): row for row in now.to_dict("records")}
    known = set()
    for row in then.to_dict("records"):
        key = tuple(row[part] for part in index)
        known.add(key)
        where = f"{name}: {' '.join(map(str, key))}"
        if key not in rows:
            yield Difference(where, "a row", "absent", None)
            continue
        for column, value in row.items():
            if column not in CLOCK:
                yield _value(f"{where} {column}", value, rows[key].get(column, "absent"), tolerance)
    yield from (
        Difference(f"{name}: {' '.join(map(str, key))}", "absent", "a row", None) for key in rows if key not in known
    )


def _summaries(before: Path, after: Path, tolerance: float) -> Iterator[Difference | None]:
    path = before / SUMMARY_FILE
    try:
        then = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable, so there is nothing to compare with: {error}") from error
    yield from _trees("summary", comparable(then), comparable(read_json(after / SUMMARY_FILE)), tolerance)


def _trees(name: str, then: Any, now: Any, tolerance: float) -> Iterator[Difference | None]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from _trees(f"{name}.{key}", then.get(key, "absent"), now.get(key, "absent"), tolerance)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, (first, second) in enumerate(zip(then, now, strict=True)):
            yield from _trees(f"{name}.{number}", first, second, tolerance)
    else:
        yield _value(name, then, now, tolerance)


def _value(what: str, then: Any, now: Any, tolerance: float) -> Difference | None:
    numbers = [isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in (then, now)]
    if all(numbers):
        first, second = float(then), float(now)
        if first == second or (math.isnan(first) and math.isnan(second)):
            return None
        by = abs(first - second)
        if by <= tolerance:
            return None
        return Difference(what, repr(first), repr(second), by if math.isfinite(by) else None)
    if (then is None or then != then) and (now is None or now != now):
        return None
    return None if then == now else Difference(what, str(then), str(now), None)
