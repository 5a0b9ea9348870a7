"""Which class and voxel value each ROI name of a data set gets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import translate
from glob import escape

from pipeline.data.dicom.instance import Instance
from pipeline.data.labels import IGNORED, LARGEST_VALUE
from pipeline.errors import UserError

BACKGROUND = "background"
SHOWN = 20  # names in a message


def choose_classes(
    masks: Sequence[Instance], labels: Mapping[int, str] | None, rois: Mapping[str, Sequence[str]] | None
) -> tuple[dict[str, str], dict[str, int], list[str]]:
    """ROI name -> class, class -> voxel value in the order of painting, and notes.

    ``labels``: value -> class, in the order of painting; None: the classes of ``rois`` in their order, or all names,
    sorted, from 1. ``rois``: class -> patterns of names; a class without any is matched by its own name. Upper and
    lower case are alike in both. Raises UserError for classes that no ROI has, and for ROIs of two classes.
    """
    names = sorted({name for mask in masks for name in mask.names}, key=lambda name: (name.casefold(), name))
    counts = {name: sum(name in mask.names for mask in masks) for name in names}
    if labels is None and rois is None:
        chosen = [name for name in names if name.casefold() != BACKGROUND]
        if len(chosen) >= IGNORED:
            raise UserError(f"{len(chosen)} different ROI names are too many classes", _choose(names))
        return {name: name for name in chosen}, {name: value for value, name in enumerate(chosen, start=1)}, []
    values = _values(labels, rois)
    patterns = {name: list((rois or {}).get(name) or [escape(name)]) for name in values}
    classes = class_of_rois(names, patterns)
    absent = [name for name in values if name not in classes.values()]
    if absent and masks:
        near = get_close_matches(absent[0].casefold(), [name.casefold() for name in names], 1, 0.4)
        hint = next((f"did you mean {name}?" for name in names if near and name.casefold() == near[0]), "")
        raise UserError(
            f"class {absent[0]}: no ROI or segment fits ({', '.join(patterns[absent[0]])})",
            *([hint] if hint else []),
            f"there are {_listed(names)}",
        )
    notes = []
    left = [f"{name} ({counts[name]})" for name in names if name not in classes]
    if left:
        notes.append(f"ROIs of no class, left out: {_listed(left)}")
    return classes, values, notes


def _values(labels: Mapping[int, str] | None, rois: Mapping[str, Sequence[str]] | None) -> dict[str, int]:
    if labels is None:
        return {name: value for value, name in enumerate(rois or {}, start=1)}
    values: dict[str, int] = {}
    for value, name in labels.items():
        if int(value) != 0:
            values.setdefault(name, int(value))
    if not values:
        raise UserError("labels: no class besides the background", "write them as {1: GTV, 2: lung}")
    wrong = [value for value in values.values() if not 0 < value <= LARGEST_VALUE]
    if wrong:
        raise UserError(f"labels: value {wrong[0]} is not between 1 and {LARGEST_VALUE}")
    unknown = [name for name in rois or {} if name not in values]
    if unknown:
        raise UserError(f"rois.{unknown[0]}: no class of labels", f"labels has {_listed(list(values))}")
    return values


def class_of_rois(names: Sequence[str], rois: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """ROI name -> class by patterns (shell wildcards); names of no class are absent. Raises UserError."""
    patterns = {
        name: [re.compile(translate(pattern.strip().casefold())) for pattern in given] for name, given in rois.items()
    }
    found = {}
    for roi in names:
        fitting = [name for name, given in patterns.items() if any(p.match(roi.casefold()) for p in given)]
        if len(fitting) > 1:
            said = f"ROI {roi} fits the classes {' and '.join(fitting)}"
            raise UserError(said, "name them in rois with patterns that fit one class each")
        if fitting:
            found[roi] = fitting[0]
    return found


def _choose(names: Sequence[str]) -> str:
    return f"choose with labels={{1: {names[0]}}}, or gather them: rois={{{names[0]}: ['{names[0]}*']}}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "") or "none"
