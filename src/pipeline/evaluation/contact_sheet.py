"""One picture of many cases with their masks outlined, so that a data set can be looked at before it is trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.data.case import Case, Dataset, Labels, Source
from pipeline.data.image_io import ImageError, read_image, read_mask
from pipeline.data.integrity import Fault
from pipeline.data.labels import IGNORED
from pipeline.evaluation.figures import Array, new_figure, save, window
from pipeline.evaluation.overlay import LINES, NEAR_ISOTROPIC, as_radiologists_see, fullest, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAMES = {"error": "#D7263D", "warning": "#F4A300"}
SIDE = 320  # most pixels of a tile along an axis; larger images are thinned
UNDECLARED = 254  # index of mask values that mean nothing
FAULTY_SHARE = 0.75  # of the tiles that cases with warnings may take while there are others


@dataclass(frozen=True)
class Tile:
    """One case as it is drawn: ``image`` (rows, columns[, 3]), ``mask``: class indices alike; None where there is none.

    ``aspect``: height over width of a pixel. ``upward``: whether the first row is at the bottom. ``said``: in the
    place of an image that cannot be shown.
    """

    title: str
    image: Array | None
    mask: Array | None = None
    aspect: float = 1.0
    upward: bool = False
    said: str = ""
    severity: str | None = None


def chosen_cases(dataset: Dataset, faults: Sequence[Fault], count: int) -> list[Case]:
    """At most ``count`` cases: those with errors, then with warnings, then some spread over all the others."""
    worst: dict[str, str] = {}
    for fault in sorted(faults, key=lambda fault: fault.severity):
        if fault.case_id is not None:
            worst.setdefault(fault.case_id, fault.severity)
    groups: dict[str | None, list[Case]] = {"error": [], "warning": [], None: []}
    for case in dataset.cases:
        groups[worst.get(case.case_id)].append(case)
    found = groups["error"][:count]
    room = count - len(found)
    found += groups["warning"][: room if not groups[None] else int(room * FAULTY_SHARE)]
    good, room = groups[None], count - len(found)
    places = np.unique(np.linspace(0, len(good) - 1, min(room, len(good))).astype(int)) if good and room else ()
    return found + [good[place] for place in places]


def tiles(dataset: Dataset, cases: Iterable[Case], faults: Sequence[Fault]) -> Iterable[Tile]:
    """The tiles of cases, read one after the other; a file that cannot be read gives a tile that says so."""
    by_case: dict[str, list[Fault]] = {}
    for fault in faults:
        by_case.setdefault(fault.case_id or "", []).append(fault)
    for case in cases:
        own = by_case.get(case.case_id, [])
        rules = ", ".join(dict.fromkeys(fault.rule.replace("_", " ") for fault in own))
        lines = [_short(case.case_id), *([_short(f"class {case.target}")] if case.target is not None else [])]
        lines += [_short(rules)] if rules else []
        severity = min((fault.severity for fault in own), default=None)
        source = next((case.images[name] for name in dataset.modalities if name in case.images), None)
        try:
            if source is None:
                raise ImageError(Path(), "no image")
            yield _tile(source, case.label, dataset.labels, "\n".join(lines), severity)
        except (ImageError, OSError, ValueError, MemoryError) as error:
            said = error.fault if isinstance(error, ImageError) else "cannot be shown"
            yield Tile("\n".join(lines), None, said=said, severity=severity)


def _tile(source: Source, label: Source | None, labels: Labels | None, title: str, severity: str | None) -> Tile:
    image = read_image(source)
    array, affine, spacing = image.array, image.affine, image.spacing
    mask = _mask(label, labels, array.shape[1:]) if label is not None and labels is not None else None
    if image.spatial_dims == 2:
        plane = np.moveaxis(array, 0, -1) if array.shape[0] == 3 else array[0]
        thin = max(1, -(-max(plane.shape[:2]) // SIDE))
        shown = None if mask is None else mask[::thin, ::thin]
        return Tile(title, plane[::thin, ::thin], shown, spacing[0] / spacing[1], severity=severity)
    volume = array[0]
    truth = np.zeros(volume.shape, np.uint8) if mask is None else mask
    volume, truth, _, steps = as_radiologists_see(volume, truth, truth, spacing, affine)
    axis = 2 if max(steps) / min(steps) <= NEAR_ISOTROPIC else int(np.argmax(steps))
    at = fullest(np.where(truth < UNDECLARED, truth, 0), axis, int(truth.max(initial=0)) + 1)
    across, along = (step for other, step in enumerate(steps) if other != axis)
    plane, shown = np.take(volume, at, axis=axis).T, np.take(truth, at, axis=axis).T
    thin = max(1, -(-max(plane.shape) // SIDE))
    plane, shown = np.array(plane[::thin, ::thin]), np.array(shown[::thin, ::thin])
    return Tile(title, plane, None if mask is None else shown, along / across, upward=True, severity=severity)


def _mask(source: Source, labels: Labels, shape: tuple[int, ...]) -> Array | None:
    """Class indices of a mask, UNDECLARED where a value means nothing; None where it does not fit the image."""
    try:
        values = read_mask(source).array[0]
    except (ImageError, OSError):
        return None
    if values.shape != shape:
        return None
    found = np.full(shape, UNDECLARED, np.uint8)
    for value, name in labels.values.items():
        found[values == value] = labels.names.index(name)
    if labels.ignore is not None:
        found[values == labels.ignore] = IGNORED
    return found


def contact_sheet(
    found: Iterable[Tile], count: int, path: Path, *, class_names: Sequence[str], title: str
) -> Mapping[str, int]:
    """Draw ``count`` tiles as a grid with a legend and write it as PNG; tiles are taken one by one.

    ``class_names``: background first. Returns how many tiles were drawn with each severity.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    columns = min(count, max(1, round(np.sqrt(count * 1.5))))
    rows = -(-count // columns)
    figure = new_figure(2.0 * columns, 2.35 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    drawn: dict[str, int] = {}
    seen: set[int] = set()
    for tile, panel in zip(found, panels, strict=False):
        _draw(panel, tile, seen)
        drawn[tile.severity or "good"] = drawn.get(tile.severity or "good", 0) + 1
    for panel in panels[sum(drawn.values()) :]:
        panel.set_axis_off()
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=LINES[(index - 1) % len(LINES)], lw=2, label=class_names[index])
        for index in sorted(seen)
        if index < UNDECLARED
    ]
    if UNDECLARED in seen:
        handles.append(Line2D([], [], color="#D7263D", lw=2, ls=":", label="undeclared value"))
    handles += [
        Patch(facecolor="none", edgecolor=colour, linewidth=2, label=f"frame: {severity}")
        for severity, colour in FRAMES.items()
        if severity in drawn
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    save(figure, path)
    return drawn


def _draw(panel: Axes, tile: Tile, seen: set[int]) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    colour = FRAMES.get(tile.severity or "", "0.8")
    for spine in panel.spines.values():
        spine.set(color=colour, linewidth=3 if tile.severity else 0.6)
    panel.set_title(tile.title, fontsize=7, color=colour if tile.severity else "black")
    if tile.image is None:
        panel.set_facecolor("0.94")
        panel.text(0.5, 0.5, _wrapped(tile.said), ha="center", va="center", fontsize=7, transform=panel.transAxes)
        return
    origin: Literal["lower", "upper"] = "lower" if tile.upward else "upper"
    panel.set_facecolor("black")
    if tile.image.ndim == 3:
        panel.imshow(np.clip(tile.image, 0, 255).astype(np.uint8), aspect=tile.aspect, origin=origin)
    else:
        low, high = window(tile.image)
        panel.imshow(tile.image, cmap="gray", vmin=low, vmax=high, aspect=tile.aspect, origin=origin)
    if tile.mask is None:
        return
    for index in np.unique(tile.mask).tolist():
        if index in (0, IGNORED):
            continue
        seen.add(index)
        outline(panel, tile.mask == index, "#D7263D" if index == UNDECLARED else LINES[(index - 1) % len(LINES)])


def _short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else text[: most - 9] + "..." + text[-6:]


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 24)[:160]
