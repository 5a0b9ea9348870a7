"""Which weights of a fold are kept: the last and the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from pipeline.training.interrupt import Stopped


class ValidateAtEnd(Callback):
    """Has the weights validated with which training stops, wherever in an epoch that is and whatever stops it.

    To stand behind the callbacks that stop training by the clock or by the number of steps.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.should_stop:
            trainer.check_val_every_n_epoch = 1


class KeepCheckpoints(Callback):
    """Saves ``last.ckpt`` after every validation and at the end, and ``best.ckpt`` at the best validation metric.

    ``last``: the validation metric of the weights in ``last.ckpt``, None where they were not validated.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = -float("inf")
        self.best_epoch = -1
        self.last: float | None = None
        self._validated_step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metric = trainer.callback_metrics.get("val_metric")
        if trainer.sanity_checking or metric is None:
            return
        self.last, self._validated_step = float(metric), trainer.global_step
        if self.last > self.best:
            self.best, self.best_epoch = self.last, trainer.current_epoch
            trainer.save_checkpoint(self.folder / "best.ckpt")
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validated_step != trainer.global_step:
            self.last = None
        trainer.save_checkpoint(self.folder / "last.ckpt")
        if self.best_epoch < 0:  # never validated
            trainer.save_checkpoint(self.folder / "best.ckpt")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Stopped) and trainer.global_step > 0 and not trainer.validating:
            trainer.save_checkpoint(self.folder / "last.ckpt")  # for who does not want to go on

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "last": self.last,
            "validated_step": self._validated_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.last, self._validated_step = state_dict["last"], state_dict["validated_step"]
