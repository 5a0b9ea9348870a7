"""Every key that the pipeline owns, with its type. YAML under conf/ gives the values; nothing else is accepted.

A value ``Node`` is a ``_target_`` node: what it builds and which parameters that takes is checked against the signature
of the named class (see ``validate.py``). Keys that end in ``_mm`` are millimetres; times are strings such as ``90s``,
``15m`` or ``2h``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.config.schema_data import Data
from pipeline.config.schema_dicom import ImportConfig
from pipeline.config.schema_engine import Engine
from pipeline.config.schema_evaluation import Evaluation, Inference
from pipeline.config.schema_launch import FoldConfig, Launch
from pipeline.config.schema_measured import Check, Drift, Fingerprint
from pipeline.config.schema_planning import PlanBudget, Planning
from pipeline.config.schema_sweep import Sweep
from pipeline.config.schema_tracking import Tracking
from pipeline.config.schema_types import (
    Beta,
    Budget,
    ClassWeights,
    Count,
    Duration,
    Fraction,
    Node,
    Section,
    Sizes,
)


class Store(Section):
    """Preprocessed cases on disk: see ``pipeline.data.store.StoreSettings`` for the meaning of each value."""

    format: Literal["npy", "blosc2"]
    dtype: Literal["float32", "float16", "auto"]
    max_gb: Annotated[float, Field(gt=0)] | None
    workers: Count | None


MirrorAxes = Literal["auto", "left_right"] | list[Annotated[int, Field(ge=0, le=2)]] | None


class Transforms(Section):
    """MONAI dictionary transforms on the keys ``image`` and ``label``; ``pipeline.transforms`` for whole batches."""

    spacing: list[float] | None  # mm
    size: list[int] | None  # voxels; -1 keeps an axis as it is
    window: tuple[float, float] | None  # Hounsfield units
    preprocessing: list[Node]
    mirror_axes: MirrorAxes = None  # for augmentations that refer to it, as the next one
    plane_rotation: Annotated[float, Field(ge=0, le=180)] | None = None  # degrees
    augmentation: list[Node]  # on one sample
    batch_augmentation: list[Node]  # on the batch


class Sampling(Section):
    """What a training batch is made of."""

    mode: Literal["uniform", "foreground", "balanced", "weighted"]
    patch_size: Sizes | None
    batch_size: Count
    batch_of: Literal["device", "all"]
    batches_per_epoch: Count | None
    foreground_fraction: Fraction
    forced: Literal["random", "per_batch"]
    class_weights: ClassWeights | None
    case_weights: Literal["none", "inverse", "effective"] | ClassWeights
    effective_beta: Beta
    centres: Count
    modality_dropout: Annotated[float, Field(ge=0, lt=1)]


class Loss(Section):
    """The loss and the weight of each class in it."""

    class_weights: Literal["none", "inverse", "effective"] | list[float]
    effective_beta: Beta
    function: Node


class Schedule(Section):
    """How long training lasts and how the learning rate moves: ``shape`` is a function of progress from 0 to 1."""

    budget: Budget | None
    epochs: Count | None
    shape: Node


class Trainer(Section):
    """Lightning's Trainer, and what goes on around its loop."""

    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Count | Literal["auto"]
    num_nodes: Count | Literal["auto"]
    strategy: str
    shard_parameters: Count
    precision: Literal["auto", "32", "bf16"]
    threads: Count | None
    workers: Annotated[int, Field(ge=0)] | Literal["auto"]
    max_time: Budget | None
    max_steps: Count | None
    gradient_clip: Annotated[float, Field(gt=0)] | None
    accumulate: Count
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None
    validate_every: Count
    validate_cases: Count | None
    validate_flips: bool
    early_stopping: Count | None


class Checkpoint(Section):
    """Points from which an interrupted fold can be gone on from."""

    every: Duration
    share: Annotated[float, Field(ge=0, le=1)]
    on_full: Literal["stop", "wait"]


class Resume(Section):
    """Which interrupted run to go on with; ``resume=FOLDER`` on the command line means ``resume.run=FOLDER``."""

    run: str | None
    allow: list[str]


class Folds(Section):
    """Cross-validation: always grouped by patient."""

    scheme: Literal["kfold", "repeated", "holdout", "predefined"]
    count: Annotated[int, Field(ge=2)] | None
    repeats: Count
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    inner: Annotated[int, Field(ge=2)] | None
    run: list[Annotated[int, Field(ge=0)]] | None
    seed: Annotated[int, Field(ge=0)]
    group: Literal["patient", "site"]
    stratify: Literal["auto", "none", "class", "foreground", "site"] | list[Literal["class", "foreground", "site"]]
    quantiles: Count
    predefined: bool
    file: str | None


class Derived(Section):
    """Filled from the data before anything is built; configs refer to it as ``${derived.in_channels}``."""

    spatial_dims: int | None
    in_channels: int | None
    out_channels: int | None
    patch_size: list[int] | None
    spacing: list[float] | None
    sides: dict[str, Any] | None
    class_weights: list[float] | None


class TrainConfig(Section):
    """``python -m pipeline train`` and ``check``."""

    name: str
    task: Literal["segmentation", "classification"]
    seed: Annotated[int, Field(ge=0)]
    output: str | None
    cache: str | None
    trust: list[str]
    reproducible: Literal[True, "strict", "fast"]
    on_nan: Literal["stop", "skip"]
    resume: Resume
    checkpoint: Checkpoint
    launch: Launch
    data: Data
    check: Check
    store: Store
    transforms: Transforms
    sampling: Sampling
    network: Node
    loss: Loss
    optimizer: Node
    schedule: Schedule
    trainer: Trainer
    engine: Engine
    folds: Folds
    inference: Inference
    evaluation: Evaluation
    tracking: Tracking
    fingerprint: Fingerprint
    derived: Derived
    planning: Planning | None = None
    plan: PlanBudget | None = Field(default=None, validate_default=False)

    @field_validator("plan", mode="before")
    @classmethod
    def _only_where_a_plan_is_made(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("planning", True) is None:
            raise ValueError("no plan is made here: experiment=auto makes one, plan=NAME uses one")
        return value


class SweepConfig(TrainConfig):
    """``python -m pipeline sweep``"""

    sweep: Sweep


class PlanConfig(TrainConfig):
    """``python -m pipeline plan``"""

    output: str
    planning: Planning
    plan: PlanBudget


class PredictConfig(Section):
    """``python -m pipeline predict``"""

    run: str
    input: str
    output: str
    labels: str | None
    ensemble: list[int] | None
    checkpoint: Literal["last", "best"] | None
    postprocess: bool
    memory_gb: Annotated[float, Field(gt=0)] | None
    batch: Count
    drift: Drift
    tracking: Tracking
    trust: list[str]


class Root(Section):
    """Where a data set is now."""

    root: str | None


class ReproduceConfig(Section):
    """``python -m pipeline reproduce``"""

    run: str
    output: str | None
    cache: str | None
    data: Root
    tolerance: Annotated[float, Field(ge=0)]
    tracking: Tracking
    trust: list[str]


class ReportConfig(Section):
    """``python -m pipeline report``"""

    run: str
    tracking: Tracking
    trust: list[str]


class CompareConfig(Section):
    """``python -m pipeline compare``"""

    runs: Annotated[list[str], Field(min_length=1)]
    names: list[str] | None
    reference: str | None
    pairs: Literal["reference", "all"]
    intersection: bool
    metrics: Annotated[list[str], Field(min_length=1)] | None
    per_class: bool
    resamples: Count
    seed: Annotated[int, Field(ge=0)]
    level: Annotated[float, Field(gt=0, lt=1)]
    output: str | None
    tracking: Tracking
    trust: list[str]


class SyncConfig(Section):
    """``python -m pipeline sync``."""

    run: str
    tracking: Tracking
    trust: list[str]


COMMANDS: dict[str, type[Section]] = {
    "train": TrainConfig,
    "sweep": SweepConfig,
    "fold": FoldConfig,
    "report": ReportConfig,
    "check": TrainConfig,
    "plan": PlanConfig,
    "predict": PredictConfig,
    "import": ImportConfig,
    "sync": SyncConfig,
    "reproduce": ReproduceConfig,
    "compare": CompareConfig,
}
