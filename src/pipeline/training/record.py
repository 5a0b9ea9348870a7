"""The course of a fold's training: a CSV in the run folder first, MLflow second."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from pipeline.ranks import rank
from pipeline.training.checkpoint import with_room
from pipeline.training.epoch_sums import EpochSums

COLUMNS = ("epoch", "step", "seconds", "lr", "train_loss", "val_metric")


class RecordMetrics(Callback):
    """One row per epoch in ``path``; the same values go to ``send(metrics, epoch)``. Rank zero only."""

    def __init__(
        self,
        path: Path,
        send: Callable[[Mapping[str, float], int], None],
        elapsed: Callable[[], float],
        sums: EpochSums,
        on_full: Literal["stop", "wait"],
    ) -> None:
        self.path = path
        self.send = send
        self.sums = sums
        self.on_full = on_full
        self.elapsed = elapsed
        self.rows: list[dict[str, float]] = []
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        summed = self.sums.take(trainer)
        if not trainer.is_global_zero:
            return
        # Lightning keeps the last validation's values; an epoch without validation has none.
        logged = {
            name: float(value)
            for name, value in trainer.logged_metrics.items()
            if self._validated or not name.startswith("val_")
        }
        self._validated = False
        row = {
            "epoch": float(trainer.current_epoch),
            "step": float(trainer.global_step),
            "seconds": round(self.elapsed(), 3),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            **summed,
            **logged,
        }
        self.rows.append(row)
        self._write()
        self.send({k: v for k, v in row.items() if k != "epoch" and math.isfinite(v)}, int(row["epoch"]))

    def _write(self) -> None:
        with_room(self._write_once, f"{self.path}: cannot be written", self.on_full)

    def _write_once(self) -> None:
        names = list(dict.fromkeys([*COLUMNS, *(name for row in self.rows for name in row)]))
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, names)
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
        if rank() == 0:
            self._write()  # rows after the point from which training is resumed are written again
