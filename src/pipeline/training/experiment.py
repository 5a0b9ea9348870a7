"""An experiment made ready: checked data, folds, preprocessed cases, and the sizes that follow from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pipeline.config.build import build, fill_derived
from pipeline.config.schema import TrainConfig
from pipeline.data.balance import class_weights
from pipeline.data.case import Case, Dataset
from pipeline.data.folds import Fold
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sides import Sides, sides_of
from pipeline.data.store import Store, StoreSettings
from pipeline.errors import UserError
from pipeline.inference.predictor import SlidingWindow, WholeImage
from pipeline.training.interrupt import Interrupt
from pipeline.transforms.mirror import AUTO, LEFT_RIGHT, mirrored_axes

MIRRORS = ("pipeline.transforms.RandomMirror", "pipeline.transforms.mirror.RandomMirror")


@dataclass(frozen=True)
class Experiment:
    """What a cross-validation needs; ``tree`` is the composed configuration before the data filled ``derived``."""

    settings: TrainConfig
    tree: Mapping[str, Any]
    dataset: Dataset
    folds: tuple[Fold, ...]
    store: Store
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    channels: int
    sides: Sides
    output: Path
    console: Console
    trusted: tuple[str, ...]
    interrupt: Interrupt = field(default_factory=Interrupt)
    # By fold, the progress of every step, where it is trained as before.
    replay: Mapping[int, Sequence[float]] = field(default_factory=dict)

    @property
    def run_folds(self) -> list[Fold]:
        """The folds to train."""
        return folds_to_run(self.settings, self.folds)

    @property
    def incomplete(self) -> bool:
        """Whether the network is to go on without some of its modalities."""
        several = len(self.dataset.modalities) > 1
        return several and (
            self.settings.sampling.modality_dropout > 0 or self.settings.data.missing.modality in ("zeros", "mean")
        )

    def cases(self, case_ids: tuple[str, ...]) -> list[Case]:
        """The cases of these ids, in the data set's order."""
        wanted = set(case_ids)
        return [case for case in self.dataset.cases if case.case_id in wanted]

    def target_indices(self, cases: list[Case]) -> list[int] | None:
        """Class index of each case, None in segmentation; a case without target counts as the commonest class."""
        if self.settings.task == "segmentation":
            return None
        known = Counter(case.target for case in cases if case.target is not None)
        commonest = max(self.dataset.classes, key=lambda name: known[name])
        return [self.dataset.classes.index(case.target or commonest) for case in cases]

    def present_classes(self, cases: Sequence[Case]) -> list[set[int]]:
        """The class indices that occur in each case: its target, or the classes of its voxels."""
        targets = self.target_indices(list(cases))
        if targets is not None:
            return [{target} for target in targets]
        return [set(self.store[case].centres) for case in cases]

    def annotated(self, cases: list[Case]) -> list[list[bool]] | None:
        """Whether each case annotates each output, None where all of the data set annotate all."""
        labels = self.dataset.labels
        if labels is None or all(case.labels_present is None for case in self.dataset.cases):
            return None
        parts = labels.parts

        def annotates(case: Case, name: str) -> bool:
            return name not in parts or case.labels_present is None or name in case.labels_present

        return [[annotates(case, name) for name in labels.outputs] for case in cases]

    def resolved(self, weights: list[float] | None = None) -> dict[str, Any]:
        """The configuration with ``derived`` filled in and every interpolation resolved."""
        resolved = fill_derived(
            self.tree,
            {
                "spatial_dims": self.dataset.spatial_dims,
                "in_channels": self.channels,
                "out_channels": len(self.dataset.output_classes),
                "patch_size": list(self.patch_size),
                "spacing": list(self.spacing),
                "sides": self.sides.as_plain(),
                "class_weights": weights,
            },
        )
        resolved["inference"]["mirror_axes"] = self.mirror_axes
        return resolved

    @property
    def mirror_axes(self) -> list[int]:
        """The spatial axes flipped at test time; ``auto``: those along which the augmentation mirrors."""
        wanted, dims = self.settings.inference.mirror_axes, self.dataset.spatial_dims
        if wanted != "auto":
            return list(wanted)
        try:
            trained = {axis for node in self._mirrors for axis in self._mirrored(node)}
        except ValueError as error:
            raise UserError(f"transforms.batch_augmentation: RandomMirror: {error}") from error
        return [axis for axis in self.sides.mirrored(dims) if axis in trained]

    def predictor(self, *, flips: bool = True) -> Any:
        """What makes the logits of a whole image: a SlidingWindow, or a WholeImage in classification.

        ``flips``: whether it averages over those of ``inference.mirror_axes``.
        """
        axes = self.mirror_axes if flips else []
        if self.settings.task == "classification":
            return WholeImage(mirror_axes=axes)
        how = self.settings.inference.window() | {"mirror_axes": axes}
        return SlidingWindow(self.patch_size, **how)

    def mirror_line(self) -> str | None:
        """What mirroring by name spares, or flips at prediction do; None where there is nothing to tell."""
        named = {
            node["axes"] for node in self._mirrors if node.get("axes") in (AUTO, LEFT_RIGHT) and not node.get("swap")
        }
        if LEFT_RIGHT in named and not self.sides.pairs and len(self.sides.axes) != 1:
            return "mirroring: along no axis, none runs from left to right in all images"
        if named:
            return self.sides.line("mirroring")
        flips = self._mirrors and self.settings.inference.mirror_axes == AUTO
        return self.sides.line("flips at prediction") if flips else None

    @property
    def _mirrors(self) -> list[Mapping[str, Any]]:
        """The augmentation's RandomMirror, unless it never mirrors."""
        nodes = fill_derived(self.tree, {"sides": self.sides.as_plain()})["transforms"]["batch_augmentation"]
        return [node for node in nodes if node["_target_"] in MIRRORS and node.get("prob") != 0]

    def _mirrored(self, node: Mapping[str, Any]) -> tuple[int, ...]:
        return mirrored_axes(node.get("axes"), self.sides.as_plain(), swap=bool(node.get("swap")))

    def class_weights(self, cases: list[Case]) -> list[float] | None:
        """Weights of the classes in the loss, from the training cases of a fold."""
        labels = self.dataset.labels
        counts = np.zeros(len(self.dataset.output_classes), dtype=np.int64)
        targets = self.target_indices(cases)
        if targets is not None:
            counts += np.bincount(targets, minlength=len(counts))
        elif self.settings.loss.class_weights != "none":
            assert labels is not None
            outputs: dict[int, tuple[int, ...]] = {0: (0,)} if labels.regions is None else {}
            outputs |= dict(enumerate(labels.parts.values(), start=len(outputs)))
            for case in cases:
                found = self.store[case].counts
                for output, part in outputs.items():
                    counts[output] += sum(found.get(index, 0) for index in part)
        try:
            loss = self.settings.loss
            return class_weights(counts.tolist(), loss.class_weights, beta=loss.effective_beta)
        except ValueError as error:
            raise UserError(str(error), f"the classes are {', '.join(self.dataset.output_classes)}") from error


def folds_to_run(settings: TrainConfig, folds: Sequence[Fold]) -> list[Fold]:
    """Those of ``folds`` that ``folds.run`` names, or all; raises UserError."""
    wanted = settings.folds.run
    if wanted is None:
        return list(folds)
    unknown = [index for index in wanted if index >= len(folds)]
    if unknown:
        raise UserError(
            f"folds.run={wanted}: there is no fold {unknown[0]}", f"there are {len(folds)}: 0 to {len(folds) - 1}"
        )
    return [folds[index] for index in sorted(set(wanted))]


def require_dimensions(settings: TrainConfig, dataset: Dataset) -> None:
    """Raise UserError where the transforms are for images of other dimensions than the data set has."""
    for key, other in (("spacing", settings.transforms.spacing), ("size", settings.transforms.size)):
        if other is not None and len(other) != dataset.spatial_dims:
            fitting = {2: "transforms=xray_2d", 3: "transforms=ct_3d, mri_3d or crop_3d"}[dataset.spatial_dims]
            raise UserError(
                f"transforms.{key}={other} is for {len(other)}D images; those of {dataset.name} are "
                f"{dataset.spatial_dims}D",
                f"set {fitting}",
            )


def make_ready(
    settings: TrainConfig,
    tree: Mapping[str, Any],
    dataset: Dataset,
    folds: tuple[Fold, ...],
    digests: Mapping[str, Mapping[str, str]],
    *,
    output: Path,
    cache: Path,
    console: Console,
    trusted: tuple[str, ...],
    workers: int,
    interrupt: Interrupt,
    replay: Mapping[int, Sequence[float]],
    report: Callable[[int, int], None],
) -> Experiment:
    """Preprocess every case and find the sizes that follow from them."""
    plain = fill_derived(tree, {"spatial_dims": dataset.spatial_dims})
    transforms = build(plain["transforms"]["preprocessing"], "transforms.preprocessing", trusted)
    recipe = json.dumps(plain["transforms"]["preprocessing"], sort_keys=True)
    preprocessing = Preprocessing(
        compose(transforms),
        dataset.labels,
        modalities=dataset.modalities,
        missing_voxels=settings.data.missing.voxels,
        centres=settings.sampling.centres,
    )
    kept = StoreSettings(**settings.store.model_dump())
    store = Store(cache / "prepared", preprocessing, recipe, digests, kept)
    store.prepare(dataset.cases, workers=kept.workers or workers, report=report)
    shapes = np.array([store[case].shape for case in dataset.cases])
    spacings = np.array([store[case].spacing for case in dataset.cases])
    experiment = Experiment(
        settings=settings,
        tree=tree,
        dataset=dataset,
        folds=folds,
        store=store,
        patch_size=_patch_size(settings, shapes, dataset),
        spacing=tuple(_rounded(float(value)) for value in np.median(spacings, axis=0)),
        channels=int(store[dataset.cases[0]].image.shape[0]),
        sides=sides_of(dataset, [store[case].affine for case in dataset.cases]),
        output=output,
        console=console,
        trusted=trusted,
        interrupt=interrupt,
        replay=replay,
    )
    if settings.task == "segmentation":
        for shape in np.unique(shapes, axis=0).tolist():
            experiment.predictor().require_memory(shape, len(dataset.output_classes), networks=1)
    return experiment


def compose(transforms: list[Any]) -> Any:
    """MONAI's Compose of a list of built transforms."""
    from monai.transforms import Compose

    return Compose(transforms)


def _rounded(spacing: float) -> float:
    """A spacing (mm) with four decimals, or of small ones (microscopy) four digits."""
    return round(spacing, 4) if spacing >= 0.1 else float(f"{spacing:.4g}")


def _patch_size(settings: TrainConfig, shapes: np.ndarray[Any, Any], dataset: Dataset) -> tuple[int, ...]:
    given = settings.sampling.patch_size
    if given is not None:
        if len(given) != dataset.spatial_dims:
            raise UserError(
                f"sampling.patch_size={given} has {len(given)} axes; {dataset.name} has {dataset.spatial_dims}D images",
                f"give {dataset.spatial_dims} numbers, or null for the whole image",
            )
        return tuple(given)
    if settings.task == "classification" and (shapes != shapes[0]).any():
        other = int(np.flatnonzero((shapes != shapes[0]).any(axis=1))[0])
        raise UserError(
            f"preprocessed images differ in size: {dataset.cases[0].case_id} has {shapes[0].tolist()}, "
            f"{dataset.cases[other].case_id} has {shapes[other].tolist()}",
            "a classifier needs one size: end transforms.preprocessing with Resized or ResizeWithPadOrCropd",
            "or set sampling.patch_size",
        )
    return tuple(int(extent) for extent in shapes.max(axis=0))
