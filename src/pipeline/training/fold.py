"""One fold: fit a task, keep its checkpoints, record its course."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping, Timer
from rich.console import Console
from torch.utils.data import DataLoader

from pipeline.data.loading import Batch
from pipeline.data.order import EpochBatches
from pipeline.json_file import read_json, write_json
from pipeline.prediction.weights import weights_digests
from pipeline.ranks import rank
from pipeline.tasks.base import Task
from pipeline.training.breakdown import NoteBatch, explained
from pipeline.training.checkpoint import AtomicCheckpointIO, remove_partial
from pipeline.training.ema import WarmEMA
from pipeline.training.epoch_sums import EpochSums
from pipeline.training.interrupt import Interrupt
from pipeline.training.keep import KeepCheckpoints, ValidateAtEnd
from pipeline.training.not_finite import WatchGradients
from pipeline.training.pace import Pace
from pipeline.training.progress import ShowProgress
from pipeline.training.record import RecordMetrics
from pipeline.training.resume_points import RESUME_FOLDER, SaveResumePoints, discard_points, newest_point
from pipeline.training.shards import strategy_of

FITTED_FILE = "fitted.json"  # of a fold that is trained
PACE_FILE = "pace.npy"  # progress of its every step


@dataclass(frozen=True)
class LoopSettings:
    """How the loop of one fold runs; see conf/trainer and conf/train.yaml for the meaning and units of each value."""

    accelerator: str
    devices: int | str
    num_nodes: int
    strategy: str
    shard_parameters: int
    precision: str  # Lightning's name
    max_seconds: float | None
    gradient_clip: float | None
    accumulate: int
    ema_decay: float | None
    validate_every: int
    early_stopping: int | None
    save_every: float  # s
    save_share: float
    on_full: Literal["stop", "wait"]
    on_nan: Literal["stop", "skip"]


@dataclass(frozen=True)
class FittedFold:
    """What training left behind."""

    best_metric: float | None  # None: never validated
    best_epoch: int | None
    last_metric: float | None  # of the weights with which training ended
    epochs: int
    steps: int
    seconds: float
    fallbacks: int = 0  # patches that were to be centred on a class that their case does not have
    skipped: int = 0  # steps that were left out because the loss was not finite
    parameters: int = 0  # weights that are trained
    weights: Mapping[str, str] = field(default_factory=dict)  # sha256 of those of the network, by checkpoint

    def write(self, folder: Path) -> None:
        """Record that the fold in ``folder`` is trained."""
        write_json(folder / FITTED_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> FittedFold | None:
        """What was recorded, None for a fold that is not trained to its end."""
        try:
            return cls(**read_json(folder / FITTED_FILE))
        except (OSError, ValueError, TypeError):
            return None


def fit_fold(
    task: Task,
    train: DataLoader[Batch],
    validation: DataLoader[Batch],
    pace: Pace,
    settings: LoopSettings,
    *,
    cases: Sequence[str],
    folder: Path,
    title: str,
    console: Console,
    send: Callable[[Mapping[str, float], int], None],
    interrupt: Interrupt,
) -> FittedFold:
    """Train ``task``, from the newest resume point in ``folder`` if there is one, and leave ``metrics.csv``,
    ``checkpoints/{last,best}.ckpt``, ``pace.npy`` and ``fitted.json`` in it.

    ``cases``: the ids that batches mean by ``case``.
    ``send(metrics, epoch)`` receives each epoch's metrics. Raises Stopped when ``interrupt`` asks for it.
    """
    points = folder / RESUME_FOLDER
    if rank() == 0:  # another process that came first would leave the first one a folder that is not empty
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder / "checkpoints")
        remove_partial(points)
    keep, sums, note = KeepCheckpoints(folder / "checkpoints"), EpochSums(), NoteBatch(cases)
    callbacks: list[Callback] = [pace]
    if settings.max_seconds is not None and pace.replay is None:
        callbacks.append(Timer(timedelta(seconds=settings.max_seconds), verbose=False))
    callbacks.append(ValidateAtEnd())
    if settings.ema_decay is not None:
        callbacks.append(WarmEMA(settings.ema_decay))
    callbacks += [
        note,
        WatchGradients(settings.on_nan, note, folder),
        sums,
        keep,
        RecordMetrics(folder / "metrics.csv", send, lambda: pace.elapsed, sums, settings.on_full),
        ShowProgress(title, pace, console, folder),
    ]
    if settings.early_stopping is not None:
        callbacks.append(
            EarlyStopping("val_metric", mode="max", patience=settings.early_stopping, check_on_train_epoch_end=False)
        )
    callbacks.append(SaveResumePoints(points, interrupt, every=settings.save_every, share=settings.save_share))
    point = newest_point(points)
    if point is not None:
        console.print(f"{title}: resumed at epoch {point.epoch + 1}, batch {point.batch + 1}", highlight=False)
        assert isinstance(train.batch_sampler, EpochBatches)
        train.batch_sampler.resume_at(point.epoch, point.batch)
    with quiet_lightning(), interrupt.deferred():
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=strategy_of(settings.strategy, settings.shard_parameters),
            precision=settings.precision,  # type: ignore[arg-type]
            max_epochs=-1,
            gradient_clip_val=settings.gradient_clip,
            accumulate_grad_batches=settings.accumulate,
            check_val_every_n_epoch=settings.validate_every,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(settings.on_full)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        with explained(title, note, getattr(train.dataset, "in_hand", None)):
            trainer.fit(task, train, validation, ckpt_path=None if point is None else point.path)
    fitted = FittedFold(
        best_metric=keep.best if keep.best_epoch >= 0 else None,
        best_epoch=keep.best_epoch if keep.best_epoch >= 0 else None,
        last_metric=keep.last,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        seconds=round(pace.elapsed, 1),
        fallbacks=sums.fallbacks,
        skipped=sums.skipped,
        parameters=sum(weight.numel() for weight in task.network.parameters() if weight.requires_grad),
        weights=weights_digests(folder / "checkpoints") if trainer.is_global_zero else {},
    )
    if trainer.is_global_zero:
        np.save(folder / PACE_FILE, np.array(pace.history))
        fitted.write(folder)
        discard_points(points)
    interrupt.check()
    return fitted


QUIET = (
    ".*does not have many workers.*",
    ".*The number of training batches.*",
    ".*LeafSpec.*",
    ".*`max_epochs` was not set.*",
    ".*recommended.*sync_dist.*",
    ".*dataloader is not resumable.*",
    ".*`srun` command is available.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's advice about workers, logging and its products is not for our users."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for pattern in QUIET:
            warnings.filterwarnings("ignore", message=pattern)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
