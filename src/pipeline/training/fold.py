"""One fold: fit a task, keep its checkpoints, record its course."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping, Timer
from rich.console import Console
from torch.utils.data import DataLoader

from pipeline.data.loading import Batch
from pipeline.tasks.base import Task
from pipeline.training.checkpoint import AtomicCheckpointIO, KeepCheckpoints, ValidateAtEnd
from pipeline.training.ema import WarmEMA
from pipeline.training.fallbacks import METRIC, CountFallbacks
from pipeline.training.pace import Pace
from pipeline.training.progress import ShowProgress
from pipeline.training.record import RecordMetrics


@dataclass(frozen=True)
class LoopSettings:
    """How the loop of one fold runs; see conf/trainer for the meaning and units of each value."""

    accelerator: str
    devices: int | str
    num_nodes: int
    strategy: str
    precision: str  # Lightning's name
    max_seconds: float | None
    max_steps: int | None
    gradient_clip: float | None
    accumulate: int
    ema_decay: float | None
    validate_every: int
    early_stopping: int | None


@dataclass(frozen=True)
class FittedFold:
    """What training left behind."""

    folder: Path
    best_metric: float | None  # None: never validated
    best_epoch: int | None
    last_metric: float | None  # of the weights with which training ended
    epochs: int
    steps: int
    seconds: float
    fallbacks: int = 0  # patches that were to be centred on a class that their case does not have


def fit_fold(
    task: Task,
    train: DataLoader[Batch],
    validation: DataLoader[Batch],
    pace: Pace,
    settings: LoopSettings,
    *,
    folder: Path,
    title: str,
    console: Console,
    send: Callable[[Mapping[str, float], int], None],
) -> FittedFold:
    """Train ``task`` and write ``metrics.csv`` and ``checkpoints/{last,best}.ckpt`` into ``folder``.

    ``send(metrics, epoch)`` receives each epoch's metrics. A fold of which nothing is left to train stops at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep = KeepCheckpoints(folder / "checkpoints")
    callbacks: list[Callback] = [pace]
    if settings.max_seconds is not None:
        callbacks.append(Timer(timedelta(seconds=settings.max_seconds), verbose=False))
    callbacks.append(ValidateAtEnd())
    if settings.ema_decay is not None:
        callbacks.append(WarmEMA(settings.ema_decay))
    record = RecordMetrics(folder / "metrics.csv", send, lambda: pace.elapsed)
    callbacks += [
        CountFallbacks(),
        keep,
        record,
        ShowProgress(title, pace, console),
    ]
    if settings.early_stopping is not None:
        callbacks.append(
            EarlyStopping("val_metric", mode="max", patience=settings.early_stopping, check_on_train_epoch_end=False)
        )
    begun = time.monotonic()
    with quiet_lightning():
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,  # type: ignore[arg-type]
            max_epochs=-1,
            max_steps=settings.max_steps or -1,
            gradient_clip_val=settings.gradient_clip,
            accumulate_grad_batches=settings.accumulate,
            check_val_every_n_epoch=settings.validate_every,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.fit(task, train, validation)
    return FittedFold(
        folder=folder,
        best_metric=keep.best if keep.best_epoch >= 0 else None,
        best_epoch=keep.best_epoch if keep.best_epoch >= 0 else None,
        last_metric=keep.last,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        seconds=time.monotonic() - begun,
        fallbacks=int(sum(row.get(METRIC, 0) for row in record.rows)),
    )


QUIET = (
    ".*does not have many workers.*",
    ".*The number of training batches.*",
    ".*LeafSpec.*",
    ".*`max_epochs` was not set.*",
    ".*recommended.*sync_dist.*",
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
