"""How far a fold's training is, and the learning rate that belongs to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from pipeline.optimizers.state import lie_as_weights
from pipeline.training.schedule import Shape


class Pace(Callback):
    """Sets the learning rate before every step from progress in [0, 1], and stops training when progress is 1.

    Progress is the share of ``total_steps`` that are done or, when ``budget`` (s) is given, of the time that has
    passed, whichever is further: a budgeted training ends on time with the rate at its end value, on any machine. The
    progress of every step is kept in checkpoints (``history``). ``most_steps`` ends training wherever progress is.
    ``replay`` is the history of an earlier training: the same steps at the same rates again, whatever the clock says.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        total_steps: int | None,
        budget: float | None,
        most_steps: int | None = None,
        replay: Sequence[float] | None = None,
    ) -> None:
        self.shape = shape
        self.total_steps = total_steps
        self.budget = None if replay is not None else budget
        self.most_steps = len(replay) if replay is not None else most_steps
        self.replay = replay
        self.history: list[float] = []
        self.progress = 0.0
        self._spent = 0.0  # s before this process, after a resume
        self._begun: float | None = None  # when this process had its first batch

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, validation included; data-loading processes that start do not count."""
        return self._spent if self._begun is None else self._spent + time.monotonic() - self._begun

    def now(self, step: int) -> float:
        """Progress after ``step`` optimizer steps."""
        if self.replay is not None:
            return float(self.replay[step]) if step < len(self.replay) else 1.0
        parts = [0.0]
        if self.total_steps is not None:
            parts.append(step / self.total_steps)
        if self.budget is not None:
            parts.append(self.elapsed / self.budget)
        return min(1.0, max(parts))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.update(optimizer.defaults)  # a checkpoint holds those of then, resume.allow may have changed them
                group["initial_lr"] = optimizer.defaults["lr"]
            lie_as_weights(optimizer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._begun is None:
            self._begun = time.monotonic()
        step = trainer.global_step
        if step == len(self.history):
            progress = self.now(step)
            if self.budget is not None and trainer.world_size > 1:
                progress = float(trainer.strategy.broadcast(progress))
            self.progress = progress
            self.history.append(progress)
        factor = self.shape.factor(self.progress)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        done = self.most_steps is not None and step >= self.most_steps
        if self.replay is None:  # of a training that was ended by the clock, the last step may be at progress 1 already
            done = done or self.now(step) >= 1.0
        if self.budget is not None and trainer.world_size > 1:
            done = bool(trainer.strategy.broadcast(done))
        if done:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metric = trainer.callback_metrics.get("val_metric")
        if metric is not None and not trainer.sanity_checking:
            self.shape.observe(float(metric))

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": torch.tensor(self.history, dtype=torch.float64),
            "spent": self.elapsed,
            "shape": self.shape.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"].tolist()
        self.progress = self.history[-1] if self.history else 0.0
        self._spent = float(state_dict["spent"])
        self.shape.load(state_dict["shape"])
