"""``python -m pipeline predict``: masks or class probabilities of new images from the folds of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.commands.check import make_console
from pipeline.config.compose import Composed
from pipeline.config.schema import PredictConfig
from pipeline.config.schema_tracking import Tracking
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.fingerprint import DriftSettings

NAMES = ("last.ckpt", "best.ckpt")


def run(composed: Composed) -> int:
    """Exit status 0 when every input has its prediction."""
    settings = composed.model
    assert isinstance(settings, PredictConfig)
    folder, folds, checkpoint = Path(settings.run).expanduser(), settings.ensemble, settings.checkpoint
    if folder.is_file():
        folder, folds, checkpoint = run_of(folder, settings)
    source, output = Path(settings.input).expanduser(), Path(settings.output).expanduser()
    if not source.exists():
        raise UserError(f"input={settings.input}: no such file or folder")
    if output.absolute() == (source if source.is_dir() else source.parent).absolute():
        raise UserError(f"output={settings.output}: is the folder of the input, masks would replace the images")
    labels = None if settings.labels is None else Path(settings.labels).expanduser()
    if labels is not None and not labels.exists():
        raise UserError(f"labels={settings.labels}: no such file or folder")
    if not folder.is_dir():
        folder = recorded_folder(settings.run, settings.tracking)

    from pipeline.prediction.predict import predict

    predict(
        folder,
        source,
        output,
        labels=labels,
        folds=folds,
        checkpoint=checkpoint,
        postprocess=settings.postprocess,
        memory_gb=settings.memory_gb,
        batch=settings.batch,
        drift=drift_settings(settings),
        trusted=composed.trusted,
        console=make_console(),
    )
    return 0


def run_of(path: Path, settings: PredictConfig) -> tuple[Path, list[int], Literal["last", "best"]]:
    """The run, the fold and the name of a checkpoint file, which is loaded safely before anything beside it is read."""
    from pipeline.prediction.trained_run import MODEL_FILE
    from pipeline.prediction.weights import read_checkpoint

    read_checkpoint(path)
    path = path.absolute()
    fold = path.parent.parent.name.removeprefix("fold_")
    if (
        path.parent.name != "checkpoints"
        or path.name not in NAMES
        or not fold.isdecimal()
        or not (path.parents[2] / MODEL_FILE).is_file()
    ):
        raise UserError(
            f"run={settings.run}: the checkpoint does not stand in the folder of a run",
            "a run has it as fold_0/checkpoints/best.ckpt; its preprocessing and labels are needed too",
        )
    if settings.ensemble is not None or settings.checkpoint is not None:
        raise UserError(
            "run names a checkpoint file; ensemble and checkpoint choose among those of a run", "leave out one"
        )
    return path.parents[2], [int(fold)], "best" if path.name == "best.ckpt" else "last"


def drift_settings(settings: PredictConfig) -> DriftSettings:
    """Limits of drift as the configuration has them."""
    from pipeline.data.fingerprint import DriftSettings

    low, high = settings.drift.central
    if low >= high:
        raise UserError(f"drift.central=[{low:g}, {high:g}]: the first percentile must be below the second")
    return DriftSettings(**settings.drift.model_dump())


def recorded_folder(run: str, tracking: Tracking) -> Path:
    """The folder of an MLflow run id."""
    if "/" in run or "\\" in run:
        raise UserError(f"run={run}: no such folder", "give the folder of a finished run, or an MLflow run id")
    from pipeline.tracking.run_folder import find_run_folder
    from pipeline.tracking.uri import store_uri

    return find_run_folder(run, store_uri(tracking.uri, Path("outputs", "mlflow.db").absolute()))
