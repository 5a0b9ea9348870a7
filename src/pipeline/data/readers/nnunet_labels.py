"""Labels of an nnU-Net dataset.json: class name -> value, or regions as lists of values, and the ignore label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.labels import Labels, parse_labels
from pipeline.errors import UserError

BACKGROUND, IGNORE = "background", "ignore"


def labels_of(described: Mapping[str, Any], index: Path, given: Mapping[Any, str] | None) -> Labels:
    """The labels of a dataset.json, or ``given`` (value -> name) in their place. Raises UserError.

    With a list among the values, every name but background and ignore is a region, in the order of painting: the one
    painted last is the innermost. ``regions_class_order`` must paint what ``Labels.painted`` says.
    """
    origin = f"{index}: labels"
    if given is not None:
        return parse_labels(given, "data.labels")
    declared = described.get("labels")
    remedy = 'write them as {"background": 0, "liver": 1}, or "tumour": [1, 2] for a region'
    if not isinstance(declared, dict) or not declared:
        raise UserError(f"{index}: declares no labels", remedy)
    values: dict[str, tuple[int, ...]] = {}
    for name, value in declared.items():
        parts = value if isinstance(value, list) else [value]
        if not parts or any(isinstance(part, bool) or not isinstance(part, int) for part in parts):
            raise UserError(f"{origin}: {name} is {value!r}, no whole number or list of them", remedy)
        values[str(name)] = tuple(parts)
    background = values.pop(BACKGROUND, (0,))
    if background != (0,):
        raise UserError(f"{origin}: the background is {list(background)}; it must be 0", remedy)
    ignored = values.pop(IGNORE, None)
    if ignored is not None and len(ignored) != 1:
        raise UserError(f"{origin}: ignore is {list(ignored)}; it must be one value", remedy)
    ignore = ignored[0] if ignored is not None else None
    if not any(isinstance(declared[name], list) for name in values):
        return _classes({name: parts[0] for name, parts in values.items()}, ignore, origin)
    return _regions(values, ignore, described.get("regions_class_order"), index)


def _classes(values: Mapping[str, int], ignore: int | None, origin: str) -> Labels:
    names: dict[int, str] = {0: BACKGROUND}
    for name, value in values.items():
        if value in names:
            raise UserError(f"{origin}: value {value} is both {names[value]} and {name}")
        names[value] = name
    return parse_labels(names, origin, ignore=ignore)


def _regions(values: Mapping[str, tuple[int, ...]], ignore: int | None, order: Any, index: Path) -> Labels:
    origin = f"{index}: labels"
    alone = {parts[0]: name for name, parts in values.items() if len(parts) == 1}
    raw = sorted({value for parts in values.values() for value in parts})
    names = {0: BACKGROUND} | {value: alone.get(value, f"label_{value}") for value in raw}
    labels = parse_labels(names, origin, regions=values, ignore=ignore)
    if order is None:
        return labels
    if not isinstance(order, list) or len(order) != len(values):
        raise UserError(
            f"{index}: regions_class_order is {order!r}; it names one value for each of {', '.join(values)}",
            "name the value that each region leaves in the mask, in the order of the regions",
        )
    painted = labels.to_value(np.array(labels.painted)).tolist()
    if painted != order:
        raise UserError(
            f"{index}: regions_class_order is {order}, but {', '.join(values)} painted in this order leave {painted}: "
            "a region leaves the lowest of its values that no later region has",
            "list the regions from the outermost to the innermost, or set data.labels and data.regions",
        )
    return labels
