"""Points from which a fold can be resumed: the whole state of its training, at epoch ends and now and then within."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from pipeline.errors import UserError
from pipeline.prediction.weights import DIGEST_SUFFIX, read_checkpoint
from pipeline.training.interrupt import Interrupt, Stopped

log = logging.getLogger(__name__)

RESUME_FOLDER = "resume"  # in the folder of a fold, while it trains
KEPT = 2
_NAME = re.compile(r"step_(\d+)\.ckpt")


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint and where in training it stands: batch ``batch`` of epoch ``epoch`` comes next, both from 0."""

    path: Path
    epoch: int
    batch: int


class SaveResumePoints(Callback):
    """Saves the state of training in ``folder`` and stops training when the process was asked to.

    At the ends of epochs, as long as that takes at most ``share`` of the time of training, and within an epoch when
    ``every`` seconds passed without one. The last two stay. To stand last among the callbacks.
    """

    def __init__(self, folder: Path, interrupt: Interrupt, *, every: float, share: float) -> None:
        self.folder = folder
        self.interrupt = interrupt
        self.every = every
        self.share = share
        self._begun = self._last = time.monotonic()
        self._spent = self._cost = 0.0  # s of saving: all, and the last

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interrupt.handle()
        self._begun = self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # What follows the last batch of an epoch belongs to it; gradients that still add up are not in a checkpoint.
        between = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if batch_idx + 1 < trainer.num_training_batches and between and not trainer.should_stop:
            self._save_if_due(trainer, pl_module, due=False)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.world_size == 1:  # what was saved last is gone on from
            self.interrupt.check()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.should_stop:
            cheap = self._spent + self._cost <= self.share * (time.monotonic() - self._begun)
            self._save_if_due(trainer, pl_module, due=cheap)

    def _save_if_due(self, trainer: Trainer, pl_module: LightningModule, *, due: bool) -> None:
        """All processes save when one wants to, and stop by the signal that one of them got."""
        due = due or time.monotonic() - self._last >= self.every
        wanted = self.interrupt.signal or int(due)  # 0: nothing, 1: save, else save and stop by this signal
        if trainer.world_size > 1:
            wanted = int(trainer.strategy.reduce(torch.tensor(wanted, device=pl_module.device), reduce_op="max"))
        if wanted:
            self._save(trainer)
        if wanted > 1:
            raise Stopped(wanted)

    def _save(self, trainer: Trainer) -> None:
        begun = time.monotonic()
        trainer.save_checkpoint(self.folder / f"step_{trainer.global_step:09d}.ckpt")
        if trainer.is_global_zero:
            for _, path in sorted(points_in(self.folder), reverse=True)[KEPT:]:
                path.unlink()
                path.with_name(path.name + DIGEST_SUFFIX).unlink(missing_ok=True)
        self._last = time.monotonic()
        self._cost = self._last - begun
        self._spent += self._cost


def points_in(folder: Path) -> Iterator[tuple[int, Path]]:
    """Step and file of every resume point in ``folder``, whole or not."""
    for path in folder.glob("step_*.ckpt"):
        if found := _NAME.fullmatch(path.name):
            yield int(found[1]), path


def newest_point(folder: Path) -> ResumePoint | None:
    """The newest resume point that is whole, None without one; those that are not are told of and passed over."""
    for _, path in sorted(points_in(folder), reverse=True):
        try:
            content = read_checkpoint(path)
            loops = content["loops"]["fit_loop"]
            epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]["current"]
        except (UserError, KeyError, TypeError) as error:
            log.warning("%s cannot be used, an older one is: %s", path, getattr(error, "cause", repr(error)))
            continue
        if epochs["processed"] == epochs["started"]:  # saved at the end of an epoch
            return ResumePoint(path, int(epochs["processed"]), 0)
        return ResumePoint(path, int(epochs["processed"]), int(batches["processed"]))
    return None


def discard_points(folder: Path) -> None:
    """Remove the resume points of a fold that needs them no more."""
    shutil.rmtree(folder, ignore_errors=True)
