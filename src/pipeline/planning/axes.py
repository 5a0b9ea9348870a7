"""The order in which a plan has the axes of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pipeline.config.schema_planning import Planning
from pipeline.data.fingerprint import Fingerprint

T = TypeVar("T")
ORDERED = (  # values of a configuration that follow the order of the axes
    "transforms.preprocessing",
    "transforms.spacing",
    "transforms.size",
    "sampling.patch_size",
    "network.strides",
    "network.kernel_sizes",
    "inference.mirror_axes",
)


def plan_order(fingerprint: Fingerprint, rules: Planning, size: Sequence[int]) -> tuple[int, ...]:
    """The axes of images that the network sees ``size`` voxels of; those without orientation keep theirs."""
    turned = fingerprint.spatial_dims == 3 and fingerprint.unit == "mm"
    return axis_order(size, rules.short_axis) if turned else tuple(range(len(size)))


def axis_order(size: Sequence[int], short: float) -> tuple[int, ...]:
    """The axes of patches of ``size`` voxels, as convolutions are to have them.

    As they are, but from the shortest to the longest where the last has less than ``short`` of the voxels of the
    longest: on a CPU a convolution runs along the last axis. nnU-Net puts the coarsest axis first.
    """
    axes = range(len(size))
    if size[-1] >= short * max(size):
        return tuple(axes)
    return tuple(sorted(axes, key=lambda axis: size[axis]))


def in_order(values: Sequence[T], order: Sequence[int]) -> tuple[T, ...]:
    """One value per axis, in another order of the axes."""
    return tuple(values[axis] for axis in order)


def given_in_order(planned: Mapping[str, Any], used: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the values that follow the order of the axes those that a run has otherwise than its plan: the user gave them.

    ``planned``, ``used``: configurations, references unresolved. What the run has no use for is not among them.
    """
    found = []
    for keys in ORDERED:
        section, _, key = keys.partition(".")
        own, theirs = planned.get(section, {}), used.get(section, {})
        if key in own and key in theirs and own[key] != theirs[key]:
            found.append(keys)
    if isinstance(
        used.get("transforms", {}).get("mirror_axes"), list
    ):  # a plan has the word of its augmentation's file
        found.append("transforms.mirror_axes")
    return tuple(found)
