"""Raw voxel values of masks, their class names, the regions they form, and the class indices of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import UserError

AT_ONCE = 1 << 18  # voxels: index tables and counts make 8 bytes of each
LARGEST_VALUE = 65535  # of a raw label value: tables of all values between stay small
IGNORED = 255  # class index of voxels that are no class: outside of loss and metrics


@dataclass(frozen=True)
class Labels:
    """Raw voxel value -> class name, e.g. ``{0: "background", 255: "lung"}``; values that share a name are merged.

    The class of raw value 0 is the background and has index 0; the others follow in the order of their values.
    ``regions``: region name -> raw values, from the outermost to the innermost, e.g. ``{"whole": (1, 2), "core":
    (2,)}``; regions may overlap, and then each of them is an output of the network in place of the classes (Isensee et
    al. 2021). ``ignore``: raw value of voxels that nobody annotated; their index is IGNORED.
    Raises ValueError.
    """

    values: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]] | None = None
    ignore: int | None = None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        values = {0: "background"} | dict(self.values)
        values = {value: values[value] for value in sorted(values)}
        names = tuple(dict.fromkeys([values[0], *values.values()]))
        declared = [*values, *([] if self.ignore is None else [self.ignore])]
        wrong = [value for value in declared if abs(value) > LARGEST_VALUE]
        if wrong:
            raise ValueError(f"label values {wrong} lie outside -{LARGEST_VALUE}..{LARGEST_VALUE}")
        if len(names) > IGNORED:
            raise ValueError(f"{len(names)} label classes; at most {IGNORED} are supported")
        if self.ignore in values:
            raise ValueError(f"value {self.ignore} is to be ignored and is class {values[self.ignore or 0]}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "names", names)
        if self.regions is not None:
            object.__setattr__(self, "regions", {name: tuple(parts) for name, parts in self.regions.items()})
            self._require_regions()

    @property
    def foreground(self) -> tuple[str, ...]:
        """The class names without the background."""
        return self.names[1:]

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the network's output channels stand for: the regions, else the classes with the background."""
        return tuple(self.regions) if self.regions is not None else self.names

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """What is scored: name of each region, else of each foreground class -> the class indices it consists of."""
        if self.regions is None:
            return {name: (index,) for index, name in enumerate(self.names) if index > 0}
        return {
            name: tuple(sorted({self.names.index(self.values[value]) for value in values}))
            for name, values in self.regions.items()
        }

    @property
    def painted(self) -> tuple[int, ...]:
        """The class index that each region leaves in a mask when regions are painted from the first to the last."""
        return tuple(min(own) for own in self._own_classes().values())

    def _own_classes(self) -> dict[str, set[int]]:
        """The class indices of each region that are in none of the regions after it."""
        parts = list(self.parts.items())
        return {
            name: set(part) - {index for _, inner in parts[number + 1 :] for index in inner}
            for number, (name, part) in enumerate(parts)
        }

    def _require_regions(self) -> None:
        assert self.regions is not None
        if not self.regions:
            raise ValueError("regions: none is given")
        for name, values in self.regions.items():
            unknown = [value for value in values if value not in self.values or value == 0]
            if unknown or not values:
                said = f"value {unknown[0]} of region {name} is no foreground class" if unknown else f"{name} is empty"
                raise ValueError(f"regions: {said}")
        for name, own in self._own_classes().items():
            if not own:
                raise ValueError(f"regions: {name} has no class of its own; the outermost must come first")

    def to_index(self, array: np.ndarray) -> np.ndarray:
        """Class indices of raw values: any shape, uint8, IGNORED where the value is that of ``ignore``.

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
        known = [*self.values, *([] if self.ignore is None else [self.ignore])]
        first, last = min(known), max(known)
        if lowest < first or highest > last:
            raise ValueError(f"values {self._undeclared(array)} are not declared")
        # 16 bits so that "not declared" (256) never collides with a class index
        table = np.full(last - first + 1, 256, np.uint16)
        for value, name in self.values.items():
            table[value - first] = self.names.index(name)
        if self.ignore is not None:
            table[self.ignore - first] = IGNORED
        found = np.empty_like(array, dtype=np.uint8)  # in the same order in memory
        flat, indices = array.ravel(order="K"), found.ravel(order="K")
        for at in range(0, flat.size, AT_ONCE):
            part = table[np.subtract(flat[at : at + AT_ONCE], first, dtype=np.int64)]
            if part.max() == 256:
                raise ValueError(f"values {self._undeclared(array)} are not declared")
            indices[at : at + AT_ONCE] = part
        return found

    def to_value(self, index: np.ndarray) -> np.ndarray:
        """Raw values of class indices (the first declared value of each class), in the smallest integer type.

        IGNORED must not occur.
        """
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
        values = [value for value in np.unique(array).tolist() if value not in self.values and value != self.ignore]
        return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def parse_labels(
    mapping: Mapping[Any, Any],
    origin: str,
    *,
    regions: Mapping[str, Sequence[int]] | None = None,
    ignore: int | None = None,
) -> Labels:
    """Labels from a mapping as it stands in YAML or JSON: keys are whole numbers or their text.

    ``origin`` names the key or file in the error message; ``regions`` and ``ignore`` as in Labels. Raises UserError.
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
        labels = Labels(
            values, None if regions is None else {name: tuple(parts) for name, parts in regions.items()}, ignore
        )
    except ValueError as error:
        raise UserError(f"{origin}: {error}", remedy) from None
    if not labels.foreground:
        raise UserError(f"{origin}: no class besides the background", remedy)
    return labels


def with_regions(labels: Labels | None, regions: Mapping[str, Sequence[int]] | None, ignore: int | None) -> Labels:
    """``labels`` with what data.regions and data.ignore say in the place of what they had; raises UserError."""
    if labels is None:
        raise UserError("data.regions and data.ignore need masks", "leave them out, or set task=segmentation")
    found = labels.regions if regions is None else {name: tuple(values) for name, values in regions.items()}
    void = labels.ignore if ignore is None else ignore
    try:
        return Labels({value: name for value, name in labels.values.items() if value != void}, found, void)
    except ValueError as error:
        raise UserError(f"data.labels, data.regions, data.ignore: {error}") from None


def class_counts(label: np.ndarray) -> np.ndarray:
    """How many voxels of each index there are, (256,)."""
    flat = label.ravel(order="K")
    blocks = range(0, flat.size, AT_ONCE)  # bincount makes 8 bytes of every voxel
    counts: np.ndarray = np.zeros(256, np.int64)
    for at in blocks:
        counts += np.bincount(flat[at : at + AT_ONCE], minlength=256)
    return counts
