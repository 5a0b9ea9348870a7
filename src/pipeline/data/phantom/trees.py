"""Branching tubes: airways and vessels that fill the lungs from the hilum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.data.phantom.shapes import Point


@dataclass(frozen=True)
class Tree:
    """Nodes of a tree, a parent before its children; the tube of node i runs from its parent to it.

    ``places`` (n, 3) mm, ``headings`` (n, 3) unit vectors, ``parents`` (n,) with -1 for the root, ``radii`` (n,) mm
    at each node; a radius above 0 is given beforehand and kept by ``with_radii``.
    """

    places: NDArray[np.float64]
    headings: NDArray[np.float64]
    parents: NDArray[np.int64]
    radii: NDArray[np.float64]

    @staticmethod
    def root(place: Point, heading: Point) -> Tree:
        """Return a tree of one node."""
        return Tree(np.array([place], float), np.array([heading], float), np.array([-1]), np.zeros(1))

    def add(self, place: NDArray[np.float64], parent: int, radius: float = 0.0) -> Tree:
        """Return the tree with one node more."""
        heading = place - self.places[parent]
        heading = heading / max(float(np.linalg.norm(heading)), 1e-6)
        return Tree(
            np.vstack([self.places, place]),
            np.vstack([self.headings, heading]),
            np.append(self.parents, parent),
            np.append(self.radii, radius),
        )

    def with_radii(self, leaf: float, power: float) -> Tree:
        """Return the tree with radii by Murray's law: radius^power of a tube is the sum over its branches.

        ``leaf`` is the radius in mm at the ends. Murray, PNAS 12:207, 1926 (there power = 3).
        """
        flow = np.zeros(len(self.places))
        for node in range(len(flow) - 1, -1, -1):
            flow[node] = flow[node] or 1.0
            if self.parents[node] >= 0:
                flow[self.parents[node]] += flow[node]
        return replace(self, radii=np.where(self.radii > 0, self.radii, leaf * flow ** (1 / power)))

    def tubes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return starts (n, 3), ends (n, 3), start radii (n,) and end radii (n,) of all tubes.

        A tube starts with its own radius, not that of the larger tube it leaves.
        """
        child = np.flatnonzero(self.parents >= 0)
        parent = self.parents[child]
        start_radii = np.minimum(self.radii[parent], 1.25 * self.radii[child])
        return self.places[parent], self.places[child], start_radii, self.radii[child]


def trunk(top: float) -> Tree:
    """Return the windpipe from above height ``top`` (mm) to its fork and the two main bronchi."""
    tree = Tree.root((2.0, -4.0, top + 70), (0.0, 0.0, -1.0))
    tree = replace(tree, radii=np.array([9.0]))
    for place, parent, radius in (
        ((2.0, -6.0, 70.0), 0, 9.0),
        ((1.0, -14.0, 22.0), 1, 8.5),
        ((20.0, -12.0, 6.0), 2, 6.8),
        ((36.0, -9.0, -6.0), 3, 5.5),
        ((-20.0, -13.0, 4.0), 2, 6.2),
        ((-38.0, -9.0, -8.0), 5, 5.2),
    ):
        tree = tree.add(np.array(place), parent, radius)
    return tree


def grow_tree(rng: np.random.Generator, tree: Tree, targets: NDArray[np.float64], near: Point) -> Tree:
    """Lead a branch to every target (n, 3), those nearest to ``near`` first.

    A branch leaves the node from which it is short and turns little, and bends a little on its way.
    """
    first = int(np.argmin(np.linalg.norm(tree.places - near, axis=1)))
    old = len(tree.places)
    size = old + 2 * len(targets)
    places, headings = np.full((size, 3), np.inf), np.zeros((size, 3))
    places[:old], headings[:old] = tree.places, tree.headings
    parents = np.full(size, -1)
    parents[:old] = tree.parents
    count = old
    for target in targets[np.argsort(np.linalg.norm(targets - np.array(near), axis=1))]:
        # Only the node nearest to ``near`` and what grew from it may branch.
        open_nodes = np.r_[first, old:count]
        gap = target - places[open_nodes]
        length = np.sqrt((gap * gap).sum(axis=1)) + 1e-6
        turn = 1 - (gap * headings[open_nodes]).sum(axis=1) / length
        best = int(np.argmin(length * (1 + 0.8 * turn)))
        start, span = int(open_nodes[best]), float(length[best])
        bent = 0.12 * span * headings[start] + rng.normal(0, 0.05 * span, 3)
        for place in (places[start] + 0.5 * gap[best] + bent, target):
            step = place - places[start]
            places[count], headings[count], parents[count] = place, step / (np.sqrt(step @ step) + 1e-6), start
            start, count = count, count + 1
    radii = np.concatenate([tree.radii, np.zeros(size - old)])
    return Tree(places, headings, parents, radii)
