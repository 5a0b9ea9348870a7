"""Preprocessing in full, every parameter with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.schema_planning import Planning
from pipeline.data.fingerprint import Fingerprint
from pipeline.planning.axes import in_order
from pipeline.planning.document import Chosen, Node
from pipeline.planning.intensities import MONAI, normalisation

BOTH = "the mask goes with its image"
ABSENT = "new images have no mask"
FLIPS = "flips at prediction along the axes that the augmentation mirrors, if it mirrors"
MODE = "linear for images; a label is one of its neighbours', never a mean"


def transforms_section(
    fingerprint: Fingerprint, rules: Planning, spacing: Chosen, size: Chosen, order: Sequence[int], *, resize: bool
) -> Mapping[str, Node]:
    """The section ``transforms``.

    ``spacing``: mm, value None where images stay on their grids. ``size``: voxels, value None where they keep theirs;
    ``resize``: images are stretched to that size, otherwise cut and padded to it. ``order``: of the axes.
    """
    steps: list[Node] = []
    if fingerprint.spatial_dims == 3 and fingerprint.unit == "mm":
        why = "the order in which all sizes of this file are given"
        if list(order) != [0, 1, 2]:
            why += f"; the longest axis last: along a short {fingerprint.axes[2]} convolutions are slow on a CPU"
        steps.append(
            {
                "_target_": Chosen(f"{MONAI}.Orientationd", "files store their axes in any order"),
                "keys": Chosen(["image", "label"], BOTH),
                "axcodes": Chosen("".join(in_order("RAS", order)), why),
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
