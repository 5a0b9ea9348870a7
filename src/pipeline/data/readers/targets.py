"""Classes of a classification data set: raw values, their names, and which of them are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.data.case import Case
from pipeline.data.readers.rows import as_text
from pipeline.data.readers.sources import listed, nearest
from pipeline.errors import UserError


def name_targets(cases: Sequence[Case], names: Mapping[Any, str] | None, origin: str) -> list[Case]:
    """Cases whose targets carry their names in ``names`` (raw value -> name); raises UserError for unnamed values."""
    if names is None:
        return list(cases)
    by_value = {as_text(value): str(name) for value, name in names.items()}
    unnamed = sorted({case.target for case in cases if case.target is not None} - by_value.keys())
    if unnamed:
        raise UserError(
            f"{origin}: target values {listed(unnamed)} have no name in data.target_names",
            f"data.target_names names {listed(sorted(by_value))}",
        )
    return [replace(case, target=by_value[case.target] if case.target is not None else None) for case in cases]


def keep_targets(
    cases: Sequence[Case], targets: Sequence[str] | None, origin: str
) -> tuple[list[Case], tuple[str, ...], list[str]]:
    """Cases of the wanted classes, the class names in the order of the network's outputs, and notes.

    ``targets`` None: all that occur, sorted. Cases without a target stay, for the integrity check to report.
    Raises UserError where a wanted class does not occur.
    """
    counts: dict[str, int] = {}
    for case in cases:
        if case.target is not None:
            counts[case.target] = counts.get(case.target, 0) + 1
    if targets is None:
        return list(cases), tuple(sorted(counts)), []
    classes = tuple(as_text(target) for target in targets)
    if len(set(classes)) != len(classes):
        raise UserError(f"data.targets={listed(classes)}: a class stands twice")
    for name in classes:
        if name not in counts:
            near = nearest(name, counts)
            remedy = f"did you mean {near[0]}?" if near else f"it has {listed(sorted(counts))}"
            raise UserError(f"{origin}: no case of class {name!r} (data.targets)", remedy)
    dropped = {name: count for name, count in counts.items() if name not in classes}
    notes = [f"{count} cases of class {name} dropped: not in data.targets" for name, count in sorted(dropped.items())]
    return [case for case in cases if case.target not in dropped], classes, notes
