"""Class rebalancing of a fold: which cases are drawn how often, where patches are centred, what the loss weighs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.nearest import did_you_mean
from pipeline.config.schema import Sampling, TrainConfig
from pipeline.data.balance import draw_weights, weights_for_cases
from pipeline.data.case import Case, Dataset
from pipeline.data.order import CaseOrder, Order, WeightedOrder, groups_by_class
from pipeline.data.patches import PatchSampling
from pipeline.errors import UserError
from pipeline.training.experiment import Experiment


@dataclass(frozen=True)
class Rebalancing:
    """How the classes of a fold are weighted, by class name; None where they are not.

    ``loss``: in the loss. ``drawn``: in drawing cases with replacement. ``oversampled``: number of training cases that
    have the class, where every class is drawn equally often. ``centres``: as centres of patches.
    """

    order: Order
    loss: Mapping[str, float] | None
    drawn: Mapping[str, float] | None
    oversampled: Mapping[str, int] | None
    centres: Mapping[str, float] | None

    @property
    def line(self) -> str | None:
        """All of it in one line, None where nothing is rebalanced."""
        said = {
            "class weights in the loss": self.loss,
            "cases drawn by class weight": self.drawn,
            "classes drawn equally often, cases": self.oversampled,
            "patch centres by class weight": self.centres,
        }
        parts = [
            f"{title}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            for title, values in said.items()
            if values is not None
        ]
        return "; ".join(parts) or None

    @property
    def params(self) -> dict[str, Any]:
        """For tracking and summary.json."""
        return {
            "class_weights": None if self.loss is None else list(self.loss.values()),
            "case_weights": self.drawn,
            "oversampled_cases": self.oversampled,
            "centre_weights": self.centres,
        }


def rebalance(experiment: Experiment, cases: Sequence[Case], loss_weights: Sequence[float] | None) -> Rebalancing:
    """The rebalancing of these training cases; ``loss_weights``: one per output. Raises UserError."""
    sampling, seed, dataset = experiment.settings.sampling, experiment.settings.seed, experiment.dataset
    names = class_names(dataset)
    order: Order = CaseOrder((tuple(range(len(cases))),), seed)
    drawn: dict[str, float] | None = None
    oversampled: dict[str, int] | None = None
    if sampling.mode == "balanced":
        present = experiment.present_classes(cases)
        order = CaseOrder(groups_by_class(present), seed)
        counts = Counter(index for found in present for index in found)
        oversampled = {name: counts[index] for index, name in enumerate(names) if counts[index]}
    elif sampling.mode == "weighted" and sampling.case_weights == "none":
        order = WeightedOrder((1.0,) * len(cases), seed)
    elif sampling.mode == "weighted":
        present, rule = experiment.present_classes(cases), sampling.case_weights
        by_class = rule if isinstance(rule, str) else by_index(rule, names, "sampling.case_weights")
        of_class = weights_for_cases(present, len(names), by_class, beta=sampling.effective_beta)
        drawn = dict(zip(names, of_class, strict=True))
        background = 0 if dataset.task == "segmentation" else None
        try:
            order = WeightedOrder(tuple(draw_weights(present, of_class, background=background)), seed)
        except ValueError as error:
            raise UserError(f"sampling.case_weights: {error}", f"the classes are {', '.join(names)}") from None
    centres = sampling.class_weights
    return Rebalancing(
        order=order,
        loss=None if loss_weights is None else dict(zip(dataset.output_classes, loss_weights, strict=True)),
        drawn=drawn,
        oversampled=oversampled,
        centres=None if centres is None else {str(name): weight for name, weight in centres.items()},
    )


def patch_sampling(experiment: Experiment, *, processes: int) -> PatchSampling:
    """How patches are placed; ``processes`` train on a batch together."""
    sampling = experiment.settings.sampling
    weights = sampling.class_weights
    return PatchSampling(
        sampling.mode,
        experiment.patch_size,
        sampling.foreground_fraction,
        None if weights is None else by_index(weights, class_names(experiment.dataset), "sampling.class_weights"),
        sampling.forced,
        sampling.batch_size * (processes if sampling.batch_of == "device" else 1),
    )


def class_names(dataset: Dataset) -> tuple[str, ...]:
    """Names of the classes that voxels or cases have, the background included."""
    return dataset.labels.names if dataset.labels is not None else dataset.classes


def by_index(weights: Mapping[str | int, float], names: Sequence[str], key: str) -> dict[int, float]:
    """Weights by class index instead of by name; raises UserError for a name that is no class."""
    for name in weights:
        if str(name) not in names:
            hint = did_you_mean(str(name), names)
            raise UserError(f"{key}: there is no class {name}", hint or f"the classes are {', '.join(names)}")
    return {names.index(str(name)): weight for name, weight in weights.items()}


def require_sampling(settings: TrainConfig, dataset: Dataset) -> None:
    """Raise UserError for sampling keys that contradict each other or the data; before anything is computed."""
    sampling, names = settings.sampling, class_names(dataset)
    if sampling.case_weights != "none" and sampling.mode != "weighted":
        said = sampling.case_weights if isinstance(sampling.case_weights, str) else "{...}"
        raise UserError(
            f"sampling.case_weights={said}, but sampling.mode={sampling.mode} draws cases in turn",
            "use sampling=weighted, or sampling.case_weights=none",
        )
    if isinstance(sampling.case_weights, Mapping):
        by_index(sampling.case_weights, names, "sampling.case_weights")
    centred = "sampling.class_weights" if sampling.class_weights is not None else None
    if sampling.forced == "per_batch":
        centred = "sampling.forced=per_batch"
    if centred is not None and settings.task == "classification":
        raise UserError(f"{centred} is for patches centred on a class; classification takes whole images")
    if centred is not None and sampling.mode == "uniform":
        raise UserError(
            f"{centred} is for patches centred on a class; sampling.mode=uniform centres none",
            "use sampling=foreground",
        )
    if sampling.class_weights is not None:
        weights = by_index(sampling.class_weights, names, "sampling.class_weights")
        if weights.get(0) is not None and sampling.mode != "balanced":
            raise UserError(
                f"sampling.class_weights: {names[0]} is the background, no centre with sampling.mode={sampling.mode}",
                "use sampling=balanced, or leave it out",
            )


def rebalanced_twice(settings: TrainConfig) -> str | None:
    """What to change where cases or patches and the loss both give rare classes their full weight, else None.

    Each of the two evens out the classes; together they turn the imbalance round.
    """
    rule = settings.loss.class_weights
    sampler = _evens_out(settings.sampling)
    if sampler is None or rule not in ("inverse", "effective"):
        return None
    return (
        f"warning: {sampler} and loss.class_weights={rule} both give rare classes their full weight, together too much:"
        " set loss.class_weights=none, or sampling=foreground (uniform in classification)"
    )


def _evens_out(sampling: Sampling) -> str | None:
    if sampling.mode == "balanced":
        return "sampling.mode=balanced"
    if sampling.mode == "weighted" and sampling.case_weights in ("inverse", "effective"):
        return f"sampling.case_weights={sampling.case_weights}"
    return None
