"""Normalisation of each channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.schema_planning import Planning
from pipeline.data.fingerprint import Fingerprint
from pipeline.data.fingerprint.model import Intensities
from pipeline.planning.document import Chosen, Node
from pipeline.planning.measured import percentile, rounded
from pipeline.planning.spacing import nonzero_share

MONAI = "monai.transforms"
MIXED = "channels differ: each has a transform of its own, in the order of the modalities"


def normalisation(fingerprint: Fingerprint, rules: Planning) -> Mapping[str, Node]:
    """The transform that normalises an image: CT by the data set's numbers, all else by those of each image.

    Source: Isensee et al. 2021.
    """
    channels = ordered_channels(fingerprint)
    ranges = {name: ct_range(name, found, rules) for name, found in channels.items()}
    whole, why = _z_score(fingerprint, rules)
    keys: Node = Chosen(["image"], "masks are class numbers")
    if not any(ranges.values()):
        return {
            "_target_": Chosen(f"{MONAI}.NormalizeIntensityd", f"{', '.join(channels)}: no CT, so {why}"),
            "keys": keys,
            "nonzero": Chosen(whole, _nonzero(fingerprint, rules)),
            "channel_wise": Chosen(True, "each channel has its own scale"),
        }
    if len(channels) == 1:
        (name, found), *_ = channels.items()
        return {**_ct(name, found, rules, "d"), "keys": keys}
    nodes: list[Node] = []
    for name, found in channels.items():
        if ranges[name]:
            nodes.append(_ct(name, found, rules, ""))
        else:
            nodes.append(
                {
                    "_target_": Chosen(f"{MONAI}.NormalizeIntensity", f"{name}: no CT, so {why}"),
                    "nonzero": Chosen(whole, _nonzero(fingerprint, rules)),
                }
            )
    return {"_target_": Chosen("pipeline.transforms.PerModalityd", MIXED), "keys": keys, "transforms": nodes}


def ordered_channels(fingerprint: Fingerprint) -> dict[str, Intensities]:
    """Intensities by channel, in the order in which the network gets them."""
    found = fingerprint.overall.intensities
    order = [
        name
        for modality in fingerprint.overall.grids
        for name in found
        if name == modality or (name.startswith(f"{modality}[") and name.endswith("]"))
    ]
    return {name: found[name] for name in order}


def ct_range(name: str, found: Intensities, rules: Planning) -> str | None:
    """Why a channel counts as CT, None where it does not."""
    ct = rules.ct
    if name.partition("[")[0].lower() in (known.lower() for known in ct.names):
        why = "the modality is called so"
    elif found.image.min < ct.below and all(kind.startswith("int") for kind in found.stored):
        why = f"{', '.join(found.stored)} down to {found.image.min:.4g}, below {ct.below:g} HU"
    elif (darkest := percentile(found.image, ct.low)) < ct.below:  # what resampling undershoots is rarer than air
        why = f"{ct.low:g} % of the values are below {darkest:.4g}, and that below {ct.below:g} HU"
    else:
        return None
    low, high, _, spread = _bounds(found, rules)
    return why if low < high and spread > 0 else None  # a constant foreground gives no scale


def _bounds(found: Intensities, rules: Planning) -> tuple[float, float, float, float]:
    pool = found.foreground or found.image
    return percentile(pool, rules.ct.low), percentile(pool, rules.ct.high), pool.mean, pool.std


def _ct(name: str, found: Intensities, rules: Planning, suffix: str) -> dict[str, Any]:
    low, high, mean, std = _bounds(found, rules)
    where = "foreground" if found.foreground else "images"
    scaled = f"minus the {where}' mean {mean:.5g}, by its standard deviation {std:.5g}".replace("d' ", "d's ")
    return {
        "_target_": Chosen(
            f"{MONAI}.ScaleIntensityRange{suffix}", f"{name} holds Hounsfield units: {ct_range(name, found, rules)}"
        ),
        "a_min": Chosen(rounded(low), f"{rules.ct.low:g}th percentile of the {where}, HU"),
        "a_max": Chosen(rounded(high), f"{rules.ct.high:g}th percentile of the {where}, HU"),
        "b_min": Chosen(rounded((low - mean) / std), f"a_min {scaled}"),
        "b_max": Chosen(rounded((high - mean) / std), "a_max likewise"),
        "clip": Chosen(True, "what lies outside of the two percentiles tells nothing of the foreground"),
    }


def _z_score(fingerprint: Fingerprint, rules: Planning) -> tuple[bool, str]:
    return nonzero_share(
        fingerprint
    ) < rules.nonzero_share, "the z-score of each image: its values have no common scale"


def _nonzero(fingerprint: Fingerprint, rules: Planning) -> str:
    share = nonzero_share(fingerprint)
    side = "less" if share < rules.nonzero_share else "not less"
    return f"the box of what is not zero is {share:.0%} of the image, {side} than {rules.nonzero_share:.0%}"
