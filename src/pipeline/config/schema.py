"""Every key that the pipeline owns, with its type. YAML under conf/ gives the values; nothing else is accepted.

A value ``Node`` is a ``_target_`` node: what it builds and which parameters that takes is checked against the signature
of the named class (see ``validate.py``). Keys that end in ``_mm`` are millimetres; times are strings such as ``90s``,
``15m`` or ``2h``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.schema_dicom import Dicom, ImportConfig
from pipeline.config.section import Count, Section

Node = dict[str, Any]
Duration = Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*(s|m|h|d)$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Sizes = list[Count]
Range = tuple[float, float]
Beta = Annotated[float, Field(gt=0, lt=1)]
ClassWeights = dict[str | int, Annotated[float, Field(ge=0)]]


class Phantom(Section):
    """The generated data set: see ``pipeline.data.phantom.PhantomSettings`` for the meaning of each value."""

    seed: Annotated[int, Field(ge=0)]
    patients: Count
    second_scan_rate: Fraction
    tumour_free_rate: Fraction
    tumours_per_patient: tuple[int, int]
    tumour_diameter_mm: Range
    tumour_hu: Range
    chest_half_width_mm: Range
    chest_half_depth_mm: Range
    lung_height_mm: Range
    fat_mm: Range
    growth: Range
    orientations: list[str]
    spacing_mm: Range
    slice_mm: Range
    width_mm: Range
    depth_mm: Range
    height_mm: Range
    tilt_deg: float
    shift_mm: float
    lung_hu: Range
    blood_hu: Range
    blur_voxels: Range
    noise_hu: Range
    noise_correlation_voxels: float
    offset_hu: Range


class Missing(Section):
    """What to do about what a case lacks."""

    modality: Literal["error", "drop", "zeros", "mean"]
    voxels: Literal["error", "fill", "interpolate"]
    target: Literal["error", "drop", "impute"]


class Data(Section):
    """Where the images are and what their labels mean."""

    format: Literal["files", "decathlon", "table", "medmnist", "phantom_lung", "dicom"]
    name: str
    root: str | None
    spatial_dims: Literal[2, 3] | None
    labels: dict[int, str] | None
    regions: dict[str, list[int]] | None
    ignore: int | None
    targets: list[str] | None
    target_names: dict[str | int, str] | None
    missing: Missing
    patient_pattern: str | None
    # files
    images: dict[str, str] | None
    mask: str | None
    # decathlon
    task: str | None
    download: bool
    # table
    table: str | None
    columns: dict[str, str | None] | None
    keep: dict[str, Any] | None
    # medmnist
    npz: str | None
    splits: list[str] | None
    # phantom_lung
    phantom: Phantom | None
    # dicom
    dicom: Dicom | None


class Transforms(Section):
    """MONAI dictionary transforms on the keys ``image`` and ``label``."""

    spacing: list[float] | None  # mm
    size: list[int] | None  # voxels; -1 keeps an axis as it is
    window: tuple[float, float] | None  # Hounsfield units
    preprocessing: list[Node]
    augmentation: list[Node]


class Sampling(Section):
    """What a training batch is made of."""

    mode: Literal["uniform", "foreground", "balanced", "weighted"]
    patch_size: Sizes | None
    batch_size: Count
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

    budget: Duration | None
    epochs: Count | None
    shape: Node


class Trainer(Section):
    """Lightning's Trainer, and what goes on around its loop."""

    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Count | Literal["auto"]
    num_nodes: Count
    strategy: str
    precision: Literal["auto", "32", "bf16"]
    threads: Count | None
    workers: Annotated[int, Field(ge=0)]
    max_time: Duration | None
    max_steps: Count | None
    gradient_clip: Annotated[float, Field(gt=0)] | None
    accumulate: Count
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None
    validate_every: Count
    validate_cases: Count | None
    early_stopping: Count | None
    deterministic: bool


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


class Inference(Section):
    """From an image to probabilities on its own voxel grid."""

    overlap: Annotated[float, Field(ge=0, lt=1)]
    window_batch: Count
    blending: Literal["gaussian", "constant"]
    mirror_axes: list[Annotated[int, Field(ge=0, le=2)]]
    region_threshold: Annotated[float, Field(gt=0, lt=1)]

    def window(self) -> dict[str, Any]:
        """The settings of the sliding window."""
        return self.model_dump(exclude={"region_threshold"})


class Evaluation(Section):
    """What is measured, and how its uncertainty is stated."""

    checkpoint: Literal["last", "best"]
    tolerance_mm: Annotated[float, Field(gt=0)]
    resamples: Count
    seed: int
    figures: bool


class Tracking(Section):
    """The MLflow store."""

    enabled: bool
    uri: str | None
    experiment: str | None
    checkpoints: bool
    flush_timeout: Duration


class Derived(Section):
    """Filled from the data before anything is built; configs refer to it as ``${derived.in_channels}``."""

    spatial_dims: int | None
    in_channels: int | None
    out_channels: int | None
    patch_size: list[int] | None
    spacing: list[float] | None
    class_weights: list[float] | None


class Check(Section):
    """Limits of the integrity check: see ``pipeline.data.integrity.CheckSettings``."""

    affine_tolerance_mm: Annotated[float, Field(ge=0)]
    fewest_foreground_voxels: Annotated[int, Field(ge=0)]
    intensity_factor: Annotated[float, Field(gt=1)]
    air_shift_hu: Annotated[float, Field(gt=0)]
    saturated_fraction: Fraction
    spacing_factor: Annotated[float, Field(gt=1)]
    inverted_correlation: Annotated[float, Field(ge=-1, lt=0)]
    near_duplicate_bits: Annotated[int, Field(ge=0, le=15)] | None
    misfit: Fraction
    contact_sheet_cases: Annotated[int, Field(ge=0)]


class TrainConfig(Section):
    """``python -m pipeline train`` and ``check``."""

    name: str
    task: Literal["segmentation", "classification"]
    seed: Annotated[int, Field(ge=0)]
    output: str | None
    cache: str | None
    trust: list[str]
    data: Data
    check: Check
    transforms: Transforms
    sampling: Sampling
    network: Node
    loss: Loss
    optimizer: Node
    schedule: Schedule
    trainer: Trainer
    folds: Folds
    inference: Inference
    evaluation: Evaluation
    tracking: Tracking
    derived: Derived


class PredictConfig(Section):
    """``python -m pipeline predict``"""

    run: str
    input: str
    output: str
    labels: str | None
    ensemble: list[int] | None
    checkpoint: Literal["last", "best"] | None
    batch: Count
    tracking: Tracking
    trust: list[str]


class SyncConfig(Section):
    """``python -m pipeline sync``."""

    run: str
    tracking: Tracking
    trust: list[str]


COMMANDS: dict[str, type[Section]] = {
    "train": TrainConfig,
    "check": TrainConfig,
    "predict": PredictConfig,
    "import": ImportConfig,
    "sync": SyncConfig,
}
