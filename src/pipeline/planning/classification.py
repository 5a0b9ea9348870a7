"""The plan of a classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from pipeline.config.schema_planning import ClassificationRegime, Planning
from pipeline.data.fingerprint import Fingerprint
from pipeline.planning.axes import in_order, plan_order
from pipeline.planning.budget import Budget
from pipeline.planning.document import Chosen, Node
from pipeline.planning.measured import reference_grid, rounded, times
from pipeline.planning.schedule import optimizer_section, schedule_section, trainer_section
from pipeline.planning.spacing import plan_resolution, why_spacing
from pipeline.planning.transforms import FLIPS, transforms_section


def classification_plan(fingerprint: Fingerprint, rules: Planning, budget: Budget) -> Mapping[str, Node]:
    """Every key that follows from the data and the budget. Raises UserError."""
    regime = budget.regime(rules.classification_regimes)
    spacing, size, order = _image(fingerprint, rules)
    batch, batch_why = _batch(fingerprint, rules, size.value)
    return {
        "defaults": _choices(fingerprint, rules, regime),
        "task": Chosen("classification", "the data set has one class per image"),
        "transforms": transforms_section(fingerprint, rules, spacing, size, order, resize=fingerprint.unit == "px"),
        "sampling": {
            "patch_size": Chosen(None, "a classifier sees the whole image"),
            **budget.batch_section(batch, batch_why),
            **_batches(fingerprint, rules, batch),
        },
        "network": {
            "width": Chosen(regime.network.width, f"features of the first block, doubling: {regime.words}"),
        },
        "optimizer": optimizer_section(regime, budget),
        "schedule": schedule_section(regime, budget),
        "trainer": trainer_section(regime, budget),
        "inference": {
            "mirror_axes": Chosen("auto", FLIPS),
        },
    }


def _choices(fingerprint: Fingerprint, rules: Planning, regime: ClassificationRegime) -> list[Mapping[str, Node]]:
    counts = fingerprint.overall.targets
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    ratio = max(counts.values(), default=1) / max(1, min(counts.values(), default=1))
    limit = rules.classification.balanced_from
    if ratio >= limit:
        sampling = Chosen("balanced", f"every class drawn equally often: {said}, {ratio:.2g} to 1, {limit:g} or more")
    else:
        sampling = Chosen("uniform", f"cases in turn: {said}, {ratio:.2g} to 1, less than {limit:g}")
    return [
        {"override /augmentation": Chosen(regime.augmentation, regime.words)},
        {"override /sampling": sampling},
        {"override /network": Chosen("cnn", "convolutions, pooled to one vector: few images suffice")},
        {"override /loss": Chosen("cross_entropy", "classes exclude each other")},
        {"override /optimizer": Chosen(regime.optimizer, regime.words)},
        {"override /schedule": Chosen(regime.schedule, regime.words)},
    ]


def _image(fingerprint: Fingerprint, rules: Planning) -> tuple[Chosen, Chosen, Sequence[int]]:
    """Spacing and size of the network's image, and the order of its axes.

    The median image, on a coarser grid where it is too large.
    """
    grid, dims = reference_grid(fingerprint), fingerprint.spatial_dims
    most = rules.classification.image_voxels.of(dims)
    shape = [axis.median for axis in grid.shape]
    if fingerprint.unit == "px":
        shrink = min(1.0, (most / prod(shape)) ** (1 / dims))
        size = [max(1, round(extent * shrink)) for extent in shape]
        why = f"median {times(shape)}" + (
            f", made smaller to {most} in all" if shrink < 1 else f", at most {most} in all"
        )
        return Chosen(None, "the images have no millimetres"), Chosen(size, why), range(dims)
    resolution = plan_resolution(fingerprint, rules)
    extent = [axis.median for axis in grid.size]
    coarser = coarsened(resolution.spacing, extent, most)
    spacing = [rounded(mm) for mm in coarser]
    size = [max(1, round(mm / step)) for mm, step in zip(extent, spacing, strict=True)]
    order = plan_order(fingerprint, rules, size)
    why = f"mm along {', '.join(in_order(fingerprint.axes, order))}: "
    why += why_spacing(fingerprint, rules, resolution.coarse, order)
    if coarser != tuple(resolution.spacing):
        why += f"; coarsened, the finest axes first, so that the whole image has at most {most} voxels"
    voxels_why = f"voxels: the median image, {times(in_order(extent, order))} mm"
    return Chosen(list(in_order(spacing, order)), why), Chosen(list(in_order(size, order)), voxels_why), order


def coarsened(spacing: Sequence[float], extent: Sequence[float], most: int) -> tuple[float, ...]:
    """The spacing with which an image of ``extent`` (both mm) has at most ``most`` voxels.

    The finest axes are raised to one level; the same spacing where the image has no more voxels.
    """
    finest_first = sorted(range(len(spacing)), key=lambda axis: spacing[axis])
    voxels = [mm / step for mm, step in zip(extent, spacing, strict=True)]
    if prod(voxels) <= most:
        return tuple(spacing)
    level = 0.0
    for raised in range(1, len(spacing) + 1):
        together, alone = finest_first[:raised], finest_first[raised:]
        ratio = prod(extent[axis] for axis in together) * prod(voxels[axis] for axis in alone) / most
        level = ratio ** (1 / raised)
        if not alone or level <= spacing[alone[0]]:
            break
    return tuple(max(step, level) for step in spacing)


def _batches(fingerprint: Fingerprint, rules: Planning, batch: int) -> Mapping[str, Node]:
    """Batches of an epoch, where the cases alone would fill too few."""
    cases, least = reference_grid(fingerprint).cases, rules.fewest_batches
    filled = round(cases / batch)
    if filled >= least:
        return {}
    return {
        "batches_per_epoch": Chosen(
            least, f"{cases} cases fill {filled}; at least {least}, or saving outweighs training"
        )
    }


def _batch(fingerprint: Fingerprint, rules: Planning, size: list[int]) -> tuple[int, str]:
    rule = rules.classification
    about = rule.batch_voxels.of(fingerprint.spatial_dims)
    least, most = rule.batch
    cases = reference_grid(fingerprint).cases
    by_voxels, by_cases = about // prod(size), round(cases * rules.covered)
    return (
        max(least, min(by_voxels, by_cases, most)),
        f"{by_voxels} by {about} voxels, {by_cases} by {rules.covered:.0%} of {cases} cases; from {least} to {most}",
    )
