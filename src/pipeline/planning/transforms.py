"""Preprocessing in full, every parameter with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.schema_planning import Planning
from pipeline.data.fingerprint import Fingerprint
from pipeline.planning.document import Chosen, Node
from pipeline.planning.intensities import MONAI, normalisation

BOTH = "the mask goes with its image"
ABSENT = "new images have no mask"
MODE = "linear for images; a label is one of its neighbours', never a mean"


def transforms_section(
    fingerprint: Fingerprint, rules: Planning, spacing: Chosen, size: Chosen, *, resize: bool
) -> Mapping[str, Node]:
    """The section ``transforms``.

    ``spacing``: mm, value None where images stay on their grids. ``size``: voxels, value None where they keep theirs;
    ``resize``: images are stretched to that size, otherwise cut and padded to it.
    """
    steps: list[Node] = []
    if fingerprint.spatial_dims == 3 and fingerprint.unit == "mm":
        steps.append(
            {
                "_target_": Chosen(f"{MONAI}.Orientationd", "files store their axes in any order"),
                "keys": Chosen(["image", "label"], BOTH),
                "axcodes": Chosen("RAS", "the order in which all sizes of this file are given"),
                "labels": Chosen(None, "MONAI's own default for this order"),
                "allow_missing_keys": Chosen(True, ABSENT),
            }
        )
    if spacing.value is not None:
        steps.append(
            {
                "_target_": Chosen("pipeline.transforms.Spacingd", "all images on voxels of one size"),
                "keys": Chosen(["image", "label"], BOTH),
                "pixdim": Chosen("${transforms.spacing}", "mm, above"),
                "mode": Chosen(["bilinear", "nearest"], MODE),
                "allow_missing_keys": Chosen(True, ABSENT),
            }
        )
    if size.value is not None and resize:
        steps.append(_resize("bilinear" if fingerprint.spatial_dims == 2 else "trilinear"))
    steps.append(normalisation(fingerprint, rules))
    if size.value is not None and not resize:
        steps.append(_cut())
    return {
        "spacing": spacing,
        "size": size,
        "window": Chosen(None, "intensities are scaled below"),
        "preprocessing": steps,
    }


def _resize(linear: str) -> Mapping[str, Node]:
    return {
        "_target_": Chosen(f"{MONAI}.Resized", "images without millimetres: the same number of voxels for all"),
        "keys": Chosen(["image", "label"], BOTH),
        "spatial_size": Chosen("${transforms.size}", "voxels, above"),
        "mode": Chosen([linear, "nearest"], MODE),
        "anti_aliasing": Chosen([True, False], "large images are smoothed before they are made small"),
        "allow_missing_keys": Chosen(True, ABSENT),
    }


def _cut() -> Mapping[str, Node]:
    return {
        "_target_": Chosen(f"{MONAI}.ResizeWithPadOrCropd", "a classifier sees the whole image, and all of one size"),
        "keys": Chosen(["image", "label"], BOTH),
        "spatial_size": Chosen("${transforms.size}", "voxels, above"),
        "allow_missing_keys": Chosen(True, ABSENT),
    }


def mirror_axes(fingerprint: Fingerprint, pairs: Sequence[tuple[str, str]]) -> tuple[list[int], str]:
    """Axes along which images may be mirrored, and why.

    All, except where two classes differ in nothing but their side of the body.
    """
    axes = list(range(fingerprint.spatial_dims))
    paired = sides(fingerprint, pairs)
    if paired is None:
        return axes, "no two classes are sides of the body, so all axes"
    side = next((axis for axis, name in enumerate(fingerprint.axes) if name in ("R", "column")), None)
    names = " and ".join(paired)
    if side is None:
        return [], f"{names} are sides of the body, and no axis is known to be left to right"
    return [axis for axis in axes if axis != side], f"{names} are sides of the body: not along axis {side}"


def sides(fingerprint: Fingerprint, pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Two classes, regions or targets that differ in a word for left or right alone; None where there are none."""
    group = fingerprint.overall
    names = [*group.classes, *group.regions, *group.targets]
    known = {_words(name): name for name in names}
    for words, name in known.items():
        for left, right in pairs:
            other = tuple(right if word == left else word for word in words)
            if other != words and other in known:
                return name, known[other]
    return None


def _words(name: str) -> tuple[str, ...]:
    """``Lung_left`` -> (lung, left)."""
    return tuple("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
