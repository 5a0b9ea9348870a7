"""``python -m pipeline predict``: masks or class probabilities of new images from the folds of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.check import make_console
from pipeline.config.compose import Composed
from pipeline.config.schema import PredictConfig
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.fingerprint import DriftSettings


def run(composed: Composed) -> int:
    """Exit status 0 when every input has its prediction."""
    settings = composed.model
    assert isinstance(settings, PredictConfig)
    source, output = Path(settings.input).expanduser(), Path(settings.output).expanduser()
    if not source.exists():
        raise UserError(f"input={settings.input}: no such file or folder")
    if output.absolute() == (source if source.is_dir() else source.parent).absolute():
        raise UserError(f"output={settings.output}: is the folder of the input, masks would replace the images")
    labels = None if settings.labels is None else Path(settings.labels).expanduser()
    if labels is not None and not labels.exists():
        raise UserError(f"labels={settings.labels}: no such file or folder")
    folder = Path(settings.run).expanduser()
    if not folder.is_dir():
        folder = recorded_folder(settings)

    from pipeline.prediction.predict import predict

    predict(
        folder,
        source,
        output,
        labels=labels,
        folds=settings.ensemble,
        checkpoint=settings.checkpoint,
        batch=settings.batch,
        drift=drift_settings(settings),
        trusted=composed.trusted,
        console=make_console(),
    )
    return 0


def drift_settings(settings: PredictConfig) -> DriftSettings:
    """Limits of drift as the configuration has them."""
    from pipeline.data.fingerprint import DriftSettings

    low, high = settings.drift.central
    if low >= high:
        raise UserError(f"drift.central=[{low:g}, {high:g}]: the first percentile must be below the second")
    return DriftSettings(**settings.drift.model_dump())


def recorded_folder(settings: PredictConfig) -> Path:
    """The folder of an MLflow run id."""
    if "/" in settings.run or "\\" in settings.run:
        raise UserError(f"run={settings.run}: no such folder", "give the folder of a finished run, or an MLflow run id")
    from pipeline.tracking.run_folder import find_run_folder
    from pipeline.tracking.uri import store_uri

    return find_run_folder(settings.run, store_uri(settings.tracking.uri, Path("outputs", "mlflow.db").absolute()))
