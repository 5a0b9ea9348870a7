"""What a person sees while a fold trains: a bar on a terminal, now and then a line in a log file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from pipeline.training.duration import in_words
from pipeline.training.pace import Pace
from pipeline.training.progress_file import FoldProgress

LINE_EVERY = 15.0  # s between lines where there is no terminal
FILE_EVERY = 2.0  # s
BAR_EVERY = 0.5  # s; the loss of a step on a GPU has to be waited for
DEAR = 0.2  # of a training by the clock: where validation takes more it is said
EARLY = 0.1  # of the budget: nothing is said before


class ShowProgress(Callback):
    """Fold, epoch, loss, validation metric and time left; also in a file of ``folder``.

    ``title`` begins the line. Time left follows from the progress of :class:`Pace`, so it is right for trainings that
    run by the clock as for those that count epochs.
    """

    def __init__(self, title: str, pace: Pace, console: Console, folder: Path) -> None:
        self.title = title
        self.folder = folder
        self.pace = pace
        self.console = console
        self._bar: Progress | None = None
        self._bar_task: TaskID | None = None
        self._metric = ""
        self._loss: Tensor | None = None  # moving average
        self._next_shown = self._next_file = 0.0
        self._validated = 0.0  # s
        self._began: float | None = None  # the validation that goes on
        self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._next_shown = time.monotonic() + (BAR_EVERY if self.console.is_terminal else LINE_EVERY)
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(), console=self.console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._bar_task = self._bar.add_task(self.title, total=1.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss: Tensor | None = getattr(pl_module, "last_loss", None)
        if not trainer.is_global_zero or loss is None:
            return
        now = time.monotonic()
        self._loss = loss if self._loss is None else torch.lerp(self._loss, loss, 0.1)
        if now < min(self._next_shown, self._next_file):
            return
        progress = self.pace.now(trainer.global_step)
        left = self.pace.elapsed * (1 - progress) / progress if progress > 0 else None
        said = f"epoch {trainer.current_epoch + 1}  loss {float(self._loss):.3f}{self._metric}"
        if now >= self._next_file:
            self._next_file = now + FILE_EVERY
            FoldProgress(progress, left, said).write(self.folder)
        if now < self._next_shown:
            return
        text = f"{self.title}  {said}"
        if self._bar is not None and self._bar_task is not None:
            self._next_shown = now + BAR_EVERY
            self._bar.update(self._bar_task, completed=progress, description=text)
        else:
            self._next_shown = now + LINE_EVERY
            words = in_words(float("nan") if left is None else left)
            self.console.print(f"{text}  {100 * progress:.0f} %, {words} left", highlight=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._began is not None:
            self._validated += time.monotonic() - self._began
        budget, spent = self.pace.budget, self.pace.elapsed
        by_clock = budget is not None and spent > EARLY * budget and trainer.is_global_zero
        if by_clock and not self._told and self._validated > DEAR * spent:
            self._told = True
            self.console.print(
                f"{self.title}: {self._validated / spent:.0%} of the time so far went into validation; "
                "a higher trainer.validate_every or a lower trainer.validate_cases leaves more of it to training",
                highlight=False,
            )
        metric = trainer.callback_metrics.get("val_metric")
        if metric is not None:
            self._metric = f"  validation {getattr(pl_module, 'metric', 'metric')} {float(metric):.3f}"

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
