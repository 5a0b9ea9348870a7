"""Left and right: which classes are a pair, and along which axis of an image they face each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.case import ArraySource, Dataset, Source
from pipeline.data.image_io import WITH_SPACE, suffix_of

# Latin by its stem: sinistra, sinistrum. Words count wherever they stand, letters only where they stand apart.
WORDS = {"left": "right", "links": "rechts", "sinister": "dexter", "sinistr": "dextr"}
LETTERS = {"l": "r", "lh": "rh"}

OPPOSITE = {a: b for pairs in (WORDS, LETTERS) for both in pairs.items() for a, b in (both, both[::-1])}
_WORD = "|".join(sorted((word for pair in WORDS.items() for word in pair), key=len, reverse=True))
_SIDE = re.compile(
    rf"(?i:{_WORD})|(?<![A-Za-z0-9])(?i:lh|rh|l|r)(?![A-Za-z0-9])|(?<=[a-z0-9])[LR](?![A-Za-z0-9])"
)  # the last: lungL


@dataclass(frozen=True)
class Sides:
    """What mirroring must know of a data set.

    ``axes``: spatial axes of the preprocessed grid along which left and right lie. ``pairs``: names of classes, or of
    regions, of the two sides. ``swaps``: class indices that change places when an image is mirrored along one of the
    axes; empty where the pairs are none of classes of a mask, or a mask annotates one of a pair only.
    """

    axes: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]
    swaps: tuple[tuple[int, int], ...]

    def mirrored(self, spatial_dims: int) -> list[int]:
        """The spatial axes along which an image may be mirrored."""
        spared = self.axes if self.pairs else ()
        return [axis for axis in range(spatial_dims) if axis not in spared]

    def as_plain(self) -> dict[str, Any]:
        """Plain types, for ``derived.sides`` of a configuration."""
        return {"axes": list(self.axes), "paired": bool(self.pairs), "swaps": [list(pair) for pair in self.swaps]}

    def line(self, what: str) -> str | None:
        """Along which axis ``what`` is not done, None where there is no pair."""
        if not self.pairs:
            return None
        first, second = self.pairs[0]
        more = f" ({len(self.pairs)} pairs)" if len(self.pairs) > 1 else ""
        axes = " or ".join(map(str, self.axes))
        return f"{what}: not along axis {axes}, left to right: {first} and {second} are a pair{more}"


def sides_of(dataset: Dataset, affines: Iterable[NDArray[np.float64]]) -> Sides:
    """The sides of a data set; ``affines``: (4, 4) of its preprocessed cases, in the order of the cases."""
    found = {
        left_right_axis(affine, dataset.spatial_dims, next(iter(case.images.values())))
        for case, affine in zip(dataset.cases, affines, strict=True)
    }
    axes = {axis for axis in found if axis is not None}
    labels = dataset.labels
    if labels is None:
        return Sides(tuple(sorted(axes)), tuple(pairs_of(dataset.classes)), ())
    of_classes = pairs_of(labels.foreground)
    pairs = of_classes + (pairs_of(list(labels.regions)) if labels.regions is not None else [])
    split = any(
        case.labels_present is not None
        and any((a in case.labels_present) != (b in case.labels_present) for a, b in pairs)
        for case in dataset.cases
    )
    swaps = [] if split else [(labels.names.index(a), labels.names.index(b)) for a, b in of_classes]
    return Sides(tuple(sorted(axes)), tuple(pairs), tuple(swaps))


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Names that differ only by the side they name, such as ``lung_left`` and ``lung_right``, in their order."""
    folded = {name.casefold(): name for name in names}
    found = []
    for place, name in enumerate(names):
        other = folded.get(opposite(name).casefold())
        if other is not None and other != name and list(names).index(other) > place:
            found.append((name, other))
    return found


def opposite(name: str) -> str:
    """``name`` with left and right exchanged; the letters of what is exchanged become small."""
    return _SIDE.sub(lambda match: OPPOSITE[match[0].casefold()], name)


def left_right_axis(affine: NDArray[np.float64], spatial_dims: int, source: Source) -> int | None:
    """The spatial axis whose direction is nearest to the world's x; of pictures, which have no world, the columns.

    None for a slice across which it runs.
    """
    if spatial_dims == 2 and (isinstance(source, ArraySource) or suffix_of(source.path) not in WITH_SPACE):
        return 1
    columns = affine[:3, :spatial_dims]
    cosines = np.abs(columns[0]) / np.linalg.norm(columns, axis=0)
    axis = int(np.argmax(cosines))
    return axis if cosines[axis] > 0.5 else None  # of three orthogonal directions one is always within 55 degrees
