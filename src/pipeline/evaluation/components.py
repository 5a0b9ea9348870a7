"""Keeping only the largest connected component of the foreground, of classes and of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from pipeline.data.fingerprint.masks import NEIGHBOURS, Neighbours, bounding_box
from pipeline.data.fingerprint.model import Connectivity
from pipeline.data.labels import IGNORED, Labels

FOREGROUND = "all foreground"  # the step that looks at all classes together

IndexArray = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """The connected pieces of one class each that a mask consists of; piece 0 is the background.

    ``index`` and ``voxels``: class index and size of each piece (n,); ``component``: per step, the component that each
    piece is part of, 0 for none (n,).
    """

    index: NDArray[np.uint8]
    voxels: IndexArray
    component: Mapping[str, IndexArray]

    @property
    def several(self) -> bool:
        """Whether anything that a step looks at has more than one component."""
        return any(len(np.unique(of_step[of_step > 0])) > 1 for of_step in self.component.values())


@dataclass(frozen=True)
class Cut:
    """A mask cut into pieces: ``box``, where its foreground lies, and in it the ``piece`` of every voxel."""

    box: tuple[slice, ...]
    piece: NDArray[np.unsignedinteger]
    pieces: Pieces


class LargestComponents:
    """Removes all but the largest component of what a step names: FOREGROUND, a class, or a region.

    Components are those of the prediction as it was made; a later step sees what earlier ones left of them. What is
    removed becomes background or, within an enclosing region, the class which that region paints. Of components of
    one size the first in the order of the voxels stays. Source: Isensee et al. 2021, postprocessing.
    Raises ValueError for a connectivity that does not exist.
    """

    def __init__(self, labels: Labels, connectivity: Connectivity) -> None:
        if (3, connectivity) not in NEIGHBOURS:
            raise ValueError(f"connectivity {connectivity!r} is none of faces, edges and corners")
        self.parts = {FOREGROUND: tuple(range(1, len(labels.names))), **labels.parts}
        self.connectivity = connectivity
        self.below = {FOREGROUND: 0, **_enclosing(labels)}

    def __call__(self, mask: NDArray[np.uint8], steps: Sequence[str]) -> NDArray[np.uint8]:
        """A mask (*spatial) of class indices after ``steps``; the same array where nothing changes."""
        cut = self.cut(mask) if steps else None
        if cut is None:
            return mask
        indices = self.after(cut.pieces, steps)
        if np.array_equal(indices, cut.pieces.index):
            return mask
        changed = mask.copy()
        changed[cut.box] = indices[cut.piece]
        return changed

    def cut(self, mask: NDArray[np.uint8]) -> Cut | None:
        """Cut a mask (*spatial) of class indices into pieces; None where it is empty."""
        box = bounding_box(mask > 0)
        if box is None:
            return None
        inside = np.ascontiguousarray(mask[box])
        neighbours = NEIGHBOURS[2 if mask.ndim == 2 else 3, self.connectivity]
        piece, number = cc3d.connected_components(inside, connectivity=neighbours, return_N=True)
        index = np.zeros(number + 1, np.uint8)
        index[piece.ravel()] = inside.ravel()
        present = set(np.unique(index[1:]).tolist())
        component: dict[str, IndexArray] = {}
        known: dict[frozenset[int], IndexArray] = {}  # components of each set of classes
        for step, part in self.parts.items():
            among = frozenset(present & set(part))
            if among not in known:
                known[among] = _components(inside, piece, index, among, neighbours)
            component[step] = known[among]
        return Cut(box, piece, Pieces(index, np.bincount(piece.ravel(), minlength=number + 1), component))

    def after(self, pieces: Pieces, steps: Sequence[str]) -> NDArray[np.uint8]:
        """The class index (n,) of every piece after ``steps``."""
        indices = pieces.index
        for step in steps:
            indices = self.step(pieces, indices, step)
        return indices

    def step(self, pieces: Pieces, indices: NDArray[np.uint8], step: str) -> NDArray[np.uint8]:
        """The class index (n,) of every piece after one more step, where ``indices`` are those before it."""
        component = pieces.component[step]
        there = np.isin(indices, self.parts[step]) & (component > 0)
        if not there.any():
            return indices
        sizes = np.bincount(component[there], weights=pieces.voxels[there])
        return np.where(there & (component != sizes.argmax()), np.uint8(self.below[step]), indices)


class Overlaps:
    """How many voxels the pieces of a prediction share with each class of its truth, without the voxels themselves.

    ``truth``: (*spatial) class indices, IGNORED voxels are left out.
    """

    def __init__(self, cut: Cut, truth: NDArray[np.uint8]) -> None:
        self.truth = np.bincount(truth.ravel(order="K"), minlength=IGNORED + 1)[:IGNORED]
        size = IGNORED + 1
        both = cut.piece.ravel().astype(np.int64) * size + truth[cut.box].ravel()
        if len(cut.pieces.index) * size <= both.size:
            counts = np.bincount(both)
            pairs = np.flatnonzero(counts)
            counts = counts[pairs]
        else:
            pairs, counts = np.unique(both, return_counts=True)
        known = pairs % size != IGNORED
        self.piece, self.of_truth, self.count = pairs[known] // size, pairs[known] % size, counts[known]

    def dice(self, indices: NDArray[np.uint8], parts: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """Dice of each part when the pieces have the class ``indices`` (n,); NaN where it is in neither mask."""
        size = IGNORED + 1
        pairs = indices[self.piece].astype(np.int64) * size + self.of_truth
        joint = np.bincount(pairs, weights=self.count, minlength=size**2).reshape(size, size)
        predicted, found = joint.sum(axis=1), {}
        for name, part in parts.items():
            members = list(part)
            either = predicted[members].sum() + self.truth[members].sum()
            shared = joint[np.ix_(members, members)].sum()
            found[name] = 2.0 * float(shared) / float(either) if either else float("nan")
        return found


def _components(
    inside: NDArray[np.uint8],
    piece: NDArray[np.unsignedinteger],
    index: NDArray[np.uint8],
    among: frozenset[int],
    neighbours: Neighbours,
) -> IndexArray:
    """The component of each piece (n,) in the union of the classes ``among``, 0 outside of it."""
    if len(among) < 2:  # of one class every piece is a component
        return np.where(np.isin(index, list(among)), np.arange(len(index)), 0)
    union = np.isin(inside, list(among)).view(np.uint8)
    found = np.zeros(len(index), np.int64)
    found[piece.ravel()] = cc3d.connected_components(union, connectivity=neighbours).ravel()
    found[0] = 0
    return found


def _enclosing(labels: Labels) -> dict[str, int]:
    """The class index that stands where a class or region is removed: that of the smallest region around it, or 0."""
    if labels.regions is None:
        return dict.fromkeys(labels.parts, 0)
    sets = {name: set(part) for name, part in labels.parts.items()}
    painted = dict(zip(sets, labels.painted, strict=True))
    around = {name: [other for other in sets if sets[other] > own] for name, own in sets.items()}
    return {
        name: painted[min(others, key=lambda other: len(sets[other]))] if others else 0
        for name, others in around.items()
    }
