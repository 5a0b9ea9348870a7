"""What is said while a fold trains."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from pytorch_lightning import LightningModule, Trainer
from rich.console import Console

from pipeline.training.pace import Pace
from pipeline.training.progress import ShowProgress
from pipeline.training.schedule import Cosine


@pytest.mark.parametrize(("budget", "told"), [(0.1, 1), (1e6, 0), (None, 0)], ids=["by the clock", "early", "epochs"])
def test_validation_that_eats_the_budget_is_told_once(budget: float | None, told: int, tmp_path: Path) -> None:
    """By the clock it takes time from training; where epochs are counted it takes none."""
    said = io.StringIO()
    pace = Pace(Cosine(warmup=0.0), total_steps=None if budget else 10, budget=budget)
    show = ShowProgress("fold 0", pace, Console(file=said, width=300), tmp_path)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    module = LightningModule()
    pace.on_train_batch_start(trainer, module, None, 0)
    for _ in range(2):  # all the time there is
        show.on_validation_start(trainer, module)
        time.sleep(0.05)
        show.on_validation_end(trainer, module)
    assert said.getvalue().count("of the time so far went into validation") == told
    assert said.getvalue().count("trainer.validate_every") == told
