"""The plan of a segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.config.schema_planning import Planning, SegmentationRegime
from pipeline.data.fingerprint import Fingerprint
from pipeline.networks.topology import Steps, plan_kernels, plan_strides
from pipeline.planning.axes import in_order, plan_order
from pipeline.planning.budget import Budget
from pipeline.planning.document import Chosen, Node, Remark
from pipeline.planning.low_resolution import LowResolution, low_resolution
from pipeline.planning.measured import reference_grid, times
from pipeline.planning.patch import ALL_STAGES, Patch, plan_batch, plan_patch
from pipeline.planning.schedule import optimizer_section, schedule_section, trainer_section
from pipeline.planning.spacing import Resolution, plan_resolution, why_spacing
from pipeline.planning.transforms import FLIPS, transforms_section
from pipeline.planning.validation import validation_section


@dataclass(frozen=True)
class _Sizes:
    resolution: Resolution
    order: tuple[int, ...]  # of the axes in the plan; all else here is in the fingerprint's
    patch: Patch
    batch: int
    batch_why: str
    batches: int  # of an epoch
    batches_why: str
    free: Patch  # as far as memory alone decides
    coarsened: LowResolution | None  # why the resolution is not the full one
    low: LowResolution | None  # what nnU-Net would add, of volumes


def segmentation_plan(fingerprint: Fingerprint, rules: Planning, budget: Budget) -> Mapping[str, Node]:
    """Every key that follows from the data and the budget. Raises UserError."""
    full = plan_resolution(fingerprint, rules)
    regime = budget.regime(rules.segmentation_regimes, full.shape)
    found = _sizes(fingerprint, rules, budget, regime, full)
    order, resolution = found.order, found.resolution
    in_mm = fingerprint.unit == "mm"
    return {
        "defaults": _choices(fingerprint, rules, regime, found),
        "task": Chosen("segmentation", "the data set has masks"),
        "transforms": transforms_section(
            fingerprint,
            rules,
            Chosen(
                list(in_order(resolution.spacing, order)),
                f"mm along {', '.join(in_order(fingerprint.axes, order))}: "
                f"{why_spacing(fingerprint, rules, resolution.coarse, order)}{_why_coarsened(regime, found)}",
            )
            if in_mm
            else Chosen(None, "the images have no millimetres: they stay on their own grids"),
            Chosen(None, "patches are cut from whole images"),
            order,
            resize=False,
        ),
        "sampling": _sampling(fingerprint, rules, budget, regime, found),
        "network": _network(regime, rules, found),
        "optimizer": optimizer_section(regime, budget),
        "schedule": schedule_section(regime, budget),
        "trainer": {
            **trainer_section(regime, budget),
            **validation_section(fingerprint, rules, resolution.spacing, found.patch.size, found.batch, found.batches),
        },
        "inference": {
            "overlap": Chosen(rules.overlap, "of the window's edge, nnU-Net's: planning.overlap"),
            "mirror_axes": Chosen("auto", FLIPS),
        },
    }


def _sizes(
    fingerprint: Fingerprint, rules: Planning, budget: Budget, regime: SegmentationRegime, resolution: Resolution
) -> _Sizes:
    group, dims = fingerprint.overall, fingerprint.spatial_dims
    classes = len(group.regions) or len(group.classes) + 1
    voxels = None if regime.step_voxels is None else regime.step_voxels.of(dims)

    def patch_of(spacing: Sequence[float], shape: Sequence[int]) -> Patch:
        return plan_patch(spacing, shape, classes, rules, budget.memory_gb, voxels, regime.beyond_image)

    def free_patch(spacing: Sequence[float], shape: Sequence[int]) -> Patch:
        return plan_patch(spacing, shape, classes, rules, budget.memory_gb)

    coarsened = None
    if regime.low_resolution is not None and dims == 3 and fingerprint.unit == "mm":
        trial = low_resolution(resolution.spacing, resolution.shape, patch_of, rules, regime.low_resolution)
        if trial.worth:
            coarsened = trial
            resolution = replace(resolution, spacing=trial.spacing, shape=trial.shape)
    spacing, shape = resolution.spacing, resolution.shape
    patch = patch_of(spacing, shape)
    order = plan_order(fingerprint, rules, patch.size)
    batch, batch_why = plan_batch(patch, shape, reference_grid(fingerprint).cases, rules, voxels)
    batches, batches_why = _batches(fingerprint, rules, budget, regime, batch)
    return _Sizes(
        resolution,
        order,
        patch,
        batch,
        batch_why,
        batches,
        batches_why,
        free_patch(spacing, shape),
        coarsened,
        low_resolution(spacing, shape, free_patch, rules) if dims == 3 else None,
    )


def _why_coarsened(regime: SegmentationRegime, found: _Sizes) -> str:
    if found.coarsened is None:
        return ""
    why = "so short a training sees more of larger voxels"
    return f"; coarsened, for {why}: {found.coarsened.words(found.order)}: {regime.words}"


def _batches(
    fingerprint: Fingerprint, rules: Planning, budget: Budget, regime: SegmentationRegime, batch: int
) -> tuple[int, str]:
    """Batches of an epoch, and why so many."""
    if budget.seconds is None:
        return regime.batches, f"{regime.words}: an epoch is so many steps, not one pass over the data"
    cases = reference_grid(fingerprint).cases
    filled = round(cases / batch)
    least, most = rules.fewest_batches, max(rules.fewest_batches, regime.batches)
    why = f"{cases} cases fill {filled}; at least {least}, or validation outweighs training"
    return min(max(filled, least), most), why + (f"; at most {most}, as without a budget" if filled > most else "")


def _choices(
    fingerprint: Fingerprint, rules: Planning, regime: SegmentationRegime, found: _Sizes
) -> list[Mapping[str, Node]]:
    together = "one Dice over the batch, as nnU-Net does"
    if fingerprint.spatial_dims == 2:
        loss = Chosen("dice_ce_batch", f"{together} in 2D")
    elif found.low is not None and found.low.worth:
        loss = Chosen("dice_ce_batch", f"{together} where a patch holds little of the image")
    else:
        loss = Chosen("dice_ce", "one Dice per patch, as nnU-Net does where a patch holds much of the image")
    augmentation = Chosen(regime.augmentation.of(fingerprint.spatial_dims), regime.words)
    if fingerprint.spatial_dims == 3 and fingerprint.unit != "mm":
        augmentation = Chosen(rules.undirected, "the files do not say where left and right are")
    return [
        {"override /augmentation": augmentation},
        {"override /sampling": Chosen("nnunet", "cases with replacement, the last third of a batch on foreground")},
        {"override /network": Chosen("unet", "nnU-Net's topology")},
        {"override /loss": loss},
        {"override /optimizer": Chosen(regime.optimizer, regime.words)},
        {"override /schedule": Chosen(regime.schedule, regime.words)},
    ]


def _sampling(
    fingerprint: Fingerprint, rules: Planning, budget: Budget, regime: SegmentationRegime, found: _Sizes
) -> Mapping[str, Node]:
    patch, order = found.patch, found.order
    median, first = times(in_order(found.resolution.shape, order)), times(in_order(patch.first, order))
    why = f"voxels; median image {median}, first patch {first}"
    if found.free.size != patch.first:
        why += f", cut to the memory: {times(in_order(found.free.size, order))}"
    if patch.size != found.free.size:
        why += f", cut {_cut_to(regime, rules, patch)}: {regime.words}"
    values = f"{patch.values / 1e6:.0f}e6 feature values of nnU-Net's network, {rules.fewest_batch} patches at most"
    values += f" {patch.capacity / 1e6:.0f}e6 in {budget.memory_gb:g} GB"
    section: dict[str, Node] = {
        "patch_size": Chosen(list(in_order(patch.size, order)), f"{why}; {values}"),
        **budget.batch_section(found.batch, found.batch_why),
        "batches_per_epoch": Chosen(found.batches, found.batches_why),
    }
    group = fingerprint.overall
    lacking = {name: grid.cases for name, grid in group.grids.items() if grid.cases < group.cases}
    if lacking:
        said = ", ".join(f"{name} in {count}" for name, count in lacking.items())
        section["modality_dropout"] = Chosen(
            rules.modality_dropout, f"not every case has every modality ({said} of {group.cases}): learn to go without"
        )
    low = "low-resolution stage: not worth it: a picture is planned at full resolution only"
    if found.coarsened is not None:
        low = "low-resolution stage: this grid is coarser already; there is no cascade"
    elif found.low is not None:
        worth = "worth it, but not trained (there is no cascade)" if found.low.worth else "not worth it"
        low = f"low-resolution stage: {worth}: {found.low.words(found.order)}"
    section["remark"] = Remark(low)
    return section


def _cut_to(regime: SegmentationRegime, rules: Planning, patch: Patch) -> str:
    limits = [] if regime.beyond_image else ["that no voxel lies beyond the median image"]
    if regime.step_voxels is not None:
        limits.append(
            f"that a step of {rules.fewest_batch} has at most {regime.step_voxels.of(len(patch.size))} voxels"
        )
    return f"so {' and '.join(limits)}"


def _network(regime: SegmentationRegime, rules: Planning, found: _Sizes) -> Mapping[str, Node]:
    choice, order, resolution = regime.network, found.order, found.resolution
    dims, strides = len(order), _strides(found.patch, resolution, regime)
    reason = regime.words
    halve = "an axis is halved from 8 voxels on, while its spacing is under twice the finest"
    full = "the first stage works on the full grid"
    if not choice.full_resolution:
        full = "the image is folded by the strides of the second stage, which comes first"
    most = rules.reference.max_features.of(dims)
    spacing = times(in_order(resolution.spacing, order))
    return {
        "strides": Chosen([list(in_order(step, order)) for step in strides], halve),
        "kernel_sizes": Chosen(
            [list(in_order(kernel, order)) for kernel in plan_kernels(resolution.spacing, strides)],
            f"3 along an axis once its spacing is under twice the finest ({spacing})",
        ),
        "width": Chosen(choice.width.of(dims), f"features of the first stage, doubling: {reason}"),
        "max_width": Chosen(most, f"nnU-Net's in {dims}D: planning.reference.max_features"),
        "convs": Chosen(choice.convs, f"per stage of the encoder: {reason}"),
        "decoder_convs": Chosen(choice.decoder_convs, f"per stage of the decoder: {reason}"),
        "full_resolution": Chosen(choice.full_resolution, f"{full}: {reason}"),
        "residual": Chosen(choice.residual, f"paths around the stages: {reason}"),
        "deep_supervision": Chosen(choice.deep_supervision, f"loss at coarser stages too: {reason}"),
    }


def _strides(patch: Patch, resolution: Resolution, regime: SegmentationRegime) -> Steps:
    stages = regime.network.stages or ALL_STAGES
    return plan_strides(patch.size, resolution.spacing, stages if regime.network.full_resolution else stages + 1)
