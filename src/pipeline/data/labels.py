"""Raw voxel values of masks, their class names, and the class indices the network learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import UserError

LARGEST_VALUE = 65535  # of a raw label value: tables of all values between stay small


@dataclass(frozen=True)
class Labels:
    """Raw voxel value -> class name, e.g. ``{0: "background", 255: "lung"}``; values that share a name are merged.

    The class of raw value 0 is the background and has index 0; the others follow in the order of their values.
    """

    values: Mapping[int, str]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        values = {0: "background"} | dict(self.values)
        values = {value: values[value] for value in sorted(values)}
        names = tuple(dict.fromkeys([values[0], *values.values()]))
        wrong = [value for value in values if abs(value) > LARGEST_VALUE]
        if wrong:
            raise ValueError(f"label values {wrong} lie outside -{LARGEST_VALUE}..{LARGEST_VALUE}")
        if len(names) > 255:
            raise ValueError(f"{len(names)} label classes; at most 255 are supported")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "names", names)

    @property
    def foreground(self) -> tuple[str, ...]:
        """The class names without the background."""
        return self.names[1:]

    def to_index(self, array: np.ndarray) -> np.ndarray:
        """Class indices of raw values: any shape, uint8.

        Raises ValueError that names the values which are not declared or no whole numbers.
        """
        if array.size == 0:
            return np.zeros(array.shape, np.uint8)
        if array.dtype.kind == "f":
            whole = np.rint(array)
            if not np.array_equal(whole, array):
                unlike = np.unique(array[whole != array])[:5]
                raise ValueError(f"values {', '.join(map(str, unlike.tolist()))} are no whole numbers")
            if np.abs(whole).max() > LARGEST_VALUE:
                raise ValueError(f"values up to {whole.max():g} are not declared")
            array = whole.astype(np.int32)
        lowest, highest = int(array.min()), int(array.max())
        first, last = min(self.values), max(self.values)
        if lowest < first or highest > last:
            raise ValueError(f"values {self._undeclared(array)} are not declared")
        # 16 bits so that "not declared" (256) never collides with a class index
        table = np.full(last - first + 1, 256, np.uint16)
        for value, name in self.values.items():
            table[value - first] = self.names.index(name)
        found: np.ndarray = table[np.subtract(array, first, dtype=np.int64)]
        if found.max() == 256:
            raise ValueError(f"values {self._undeclared(array)} are not declared")
        return found.astype(np.uint8)

    def to_value(self, index: np.ndarray) -> np.ndarray:
        """Raw values of class indices (the first declared value of each class), in the smallest integer type."""
        first: dict[str, int] = {}
        for value, name in self.values.items():
            first.setdefault(name, value)
        first[self.names[0]] = 0
        table = np.array([first[name] for name in self.names])
        for dtype in (np.uint8, np.uint16, np.int16, np.int32):
            limits = np.iinfo(dtype)
            if limits.min <= table.min() and table.max() <= limits.max:
                values: np.ndarray = table.astype(dtype)[index]
                return values
        raise AssertionError("LARGEST_VALUE bounds the values")

    def _undeclared(self, array: np.ndarray) -> str:
        values = [value for value in np.unique(array).tolist() if value not in self.values]
        return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def parse_labels(mapping: Mapping[Any, Any], origin: str) -> Labels:
    """Labels from a mapping as it stands in YAML or JSON: keys are whole numbers or their text.

    ``origin`` names the key or file in the error message. Raises UserError.
    """
    remedy = "write them as {0: background, 1: lung}: raw voxel value first, then the class name"
    if not isinstance(mapping, Mapping) or not mapping:
        raise UserError(f"{origin}: no mapping from voxel values to class names", remedy)
    values: dict[int, str] = {}
    for key, name in mapping.items():
        try:
            value = int(str(key))
        except ValueError:
            raise UserError(f"{origin}: label value {key!r} is no whole number", remedy) from None
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{origin}: the class name of value {value} is {name!r}, not a text", remedy)
        if value in values:
            raise UserError(f"{origin}: label value {value} is declared twice", remedy)
        values[value] = name
    try:
        labels = Labels(values)
    except ValueError as error:
        raise UserError(f"{origin}: {error}", remedy) from None
    if not labels.foreground:
        raise UserError(f"{origin}: no class besides the background", remedy)
    return labels
