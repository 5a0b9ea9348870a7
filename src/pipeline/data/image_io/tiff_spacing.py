"""Voxel sizes that a TIFF file states: by ImageJ, OME-XML, tifffile, or as a resolution in cm or inches."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

UNITS = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3}
UNITS |= {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "inch": 25.4}
PRINTED = {72, 96, 150, 200, 300, 400, 600, 1200}  # dots per inch that programs write for printers
INCH, CENTIMETRE = 2, 3

NO_SPACING = "no spacing is written; 1 mm is taken"
NO_DEPTH = "no distance between its slices is written; 1 mm is taken"


def spacing_mm(tif: Any, page: Any, volume: bool) -> tuple[tuple[float, float, float], str | None]:
    """Spacing along x, y and the slices in mm, 1 where it is not written, and what is doubtful about that."""
    x, y, z = _written(tif, page)
    plane = (x, y) if usable(x) and usable(y) else None
    depth = z if usable(z) else None
    doubt = None
    if volume and (plane is None or depth is None):
        doubt = (
            NO_SPACING if plane is None and depth is None else NO_DEPTH if depth is None else f"{NO_SPACING} in plane"
        )
    return (*(plane or (1.0, 1.0)), depth or 1.0), doubt  # type: ignore[return-value]


def usable(length: float | None) -> bool:
    """Whether a length is a positive finite number."""
    return length is not None and bool(np.isfinite(length)) and length > 0


def _written(tif: Any, page: Any) -> tuple[float | None, float | None, float | None]:
    x, y = (_per_unit(page, tag) for tag in (282, 283))
    if tif.is_ome and tif.ome_metadata:
        return tuple(_ome(tif.ome_metadata, axis) for axis in "XYZ")  # type: ignore[return-value]
    described = tif.imagej_metadata or {}
    if described:
        scale = UNITS.get(str(described.get("unit", "")).replace("\\u00B5", "µ").casefold())
        if scale is None:
            return None, None, None
        return _times(scale, x), _times(scale, y), _times(scale, _number(described.get("spacing")))
    shaped: dict[str, Any] = next(iter(tif.shaped_metadata or ()), {})
    depth = _times(UNITS.get(str(shaped.get("unit", "")).casefold()), _number(shaped.get("spacing")))
    unit = page.tags.get(296)
    scale = {INCH: 25.4, CENTIMETRE: 10.0}.get(int(unit.value)) if unit is not None else None
    if unit is not None and int(unit.value) == INCH and x and y and {round(1 / x, 2), round(1 / y, 2)} <= PRINTED:
        scale = None
    return _times(scale, x), _times(scale, y), depth


def _per_unit(page: Any, tag: int) -> float | None:
    """Length of a pixel in the file's unit: its resolution counts pixels per unit."""
    found = page.tags.get(tag)
    if found is None or len(np.atleast_1d(found.value)) != 2:
        return None
    count, units = found.value
    return float(units) / float(count) if count else None


def _ome(text: str, axis: str) -> float | None:
    size = re.search(rf'PhysicalSize{axis}="([^"]+)"', text)
    unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', text)
    return _times(UNITS.get(unit.group(1) if unit else "µm"), _number(size.group(1))) if size else None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _times(scale: float | None, length: float | None) -> float | None:
    return None if scale is None or length is None else scale * length
