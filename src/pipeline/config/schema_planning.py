"""The keys of ``plan:`` (what a plan may spend) and ``planning:`` (how it follows from a data set)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema_types import Budget, Count, Fraction, Percent, Section

Positive = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(gt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class PlanBudget(Section):
    """What the user grants."""

    budget: Budget | Literal["none"]
    memory_gb: Positive
    accelerator: Literal["auto", "cpu", "gpu"]


class CountByDims(Section):
    """One number for pictures and one for volumes."""

    in_2d: Count
    in_3d: Count

    def of(self, spatial_dims: int) -> int:
        """The number for so many axes."""
        return self.in_2d if spatial_dims == 2 else self.in_3d


class NameByDims(Section):
    """One option for pictures and one for volumes."""

    in_2d: str
    in_3d: str

    def of(self, spatial_dims: int) -> str:
        """The option for so many axes."""
        return self.in_2d if spatial_dims == 2 else self.in_3d


class Reference(Section):
    """The network by which memory is judged."""

    memory_gb: Positive
    values: CountByDims
    batch: CountByDims
    features: Count
    max_features: CountByDims
    convs: Count


class LowResolution(Section):
    """When a first stage on a coarser grid would be worth it."""

    share: Fraction
    step: Factor
    gain: Factor


class Ct(Section):
    """What counts as CT, and the percentiles at which it is clipped."""

    names: list[str]
    below: float
    low: Percent
    high: Percent


class ClassificationRules(Section):
    """Sizes of images and batches of a classifier."""

    image_voxels: CountByDims
    batch_voxels: CountByDims
    batch: tuple[Count, Count]
    balanced_from: Annotated[float, Field(ge=1)]


class ValidationRules(Section):
    """What validation during training may cost."""

    share: Annotated[float, Field(gt=0, le=1)]
    every: Count
    cases: tuple[Count, Count]


class UNetChoice(Section):
    """Options of ``pipeline.networks.UNet``."""

    width: CountByDims
    stages: Count | None
    convs: Count
    decoder_convs: Count
    full_resolution: bool
    residual: bool
    deep_supervision: bool


class CNNChoice(Section):
    """Options of ``pipeline.networks.CNN``."""

    width: Count


class Regime(Section):
    """What budgets of an accelerator deserve; names are options of the groups of the same names."""

    accelerator: Literal["cpu", "gpu"]
    from_min: Positive | None = None
    below_min: Positive | None
    optimizer: str
    lr: Positive
    schedule: str
    ema_decay: Share | None
    epochs: Count

    @property
    def words(self) -> str:
        """Which budgets it is for."""
        least = "" if self.from_min is None else f" from {self.from_min:g} min"
        limit = "" if self.below_min is None else f" below {self.below_min:g} min"
        return f"regime of {self.accelerator}{least}{limit}"

    def holds(self, minutes: float | None) -> bool:
        """Whether it is for budgets of so many minutes; None: no limit of time."""
        if minutes is None:
            return self.below_min is None
        return (self.from_min is None or minutes >= self.from_min) and (
            self.below_min is None or minutes < self.below_min
        )

    def suits(self, shape: Sequence[int] | None) -> bool:
        """Whether it is for a median image of ``shape`` voxels; None: what is for any."""
        return True


class SegmentationRegime(Regime):
    """A regime of segmentation."""

    network: UNetChoice
    augmentation: NameByDims
    image_voxels: Count | None = None
    step_voxels: CountByDims | None
    beyond_image: bool
    low_resolution: Annotated[float, Field(gt=0, le=1)] | None = None
    batches: Count

    @property
    def words(self) -> str:
        images = "" if self.image_voxels is None else f", images of at most {self.image_voxels} voxels"
        return super().words + images

    def suits(self, shape: Sequence[int] | None) -> bool:
        return self.image_voxels is None or (shape is not None and prod(shape) <= self.image_voxels)


class ClassificationRegime(Regime):
    """A regime of classification."""

    network: CNNChoice
    augmentation: str


class Planning(Section):
    """The rules of planning; see conf/planning for meaning, unit and source of each."""

    coarse_factor: Factor
    coarse_percentile: Percent
    first_patch: CountByDims
    reference: Reference
    fewest_batch: Count
    covered: Fraction
    low_resolution: LowResolution
    ct: Ct
    nonzero_share: Fraction
    short_axis: Fraction
    overlap: Share
    fewest_batches: Count
    validation: ValidationRules
    undirected: str
    modality_dropout: Share
    classification: ClassificationRules
    segmentation_regimes: Annotated[list[SegmentationRegime], Field(min_length=1)]
    classification_regimes: Annotated[list[ClassificationRegime], Field(min_length=1)]
