"""What broke a training, told by the cases at which it happened."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from pipeline.data.loading import InHand
from pipeline.errors import UserError, is_out_of_memory, one_line

_PIDS = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process")
ENDING_S = 1.0  # in which a killed process is gone
SMALLER = (
    "sampling.batch_size or sampling.patch_size smaller, or trainer.precision=bf16",
    "engine.oom=shrink computes a batch in parts where it does not fit",
)


class NoteBatch(Callback):
    """Knows the batches of the step in hand, several where gradients add up; ``cases``: ids by index."""

    def __init__(self, cases: Sequence[str]) -> None:
        self.cases = cases
        self.batches: list[Mapping[str, Any]] = []
        self.place = ""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.batches = []
        self.batches.append(batch)
        self.place = f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}"

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.batches = []
        self.place = f"epoch {trainer.current_epoch + 1}, validation case {batch_idx + 1}"

    def in_hand(self) -> list[str]:
        """The cases of the batches."""
        return list(dict.fromkeys(case for batch in self.batches for case in self.of(batch)))

    def of(self, batch: Mapping[str, Any]) -> list[str]:
        """The cases of one batch, sample by sample."""
        return [self.cases[index] for index in batch["case"].tolist()]


@contextmanager
def explained(title: str, note: NoteBatch, in_hand: InHand | None) -> Iterator[None]:
    """Turn the loss of a worker and a lack of memory into a UserError that names the cases; the rest passes."""
    try:
        yield
    except UserError:
        raise
    except (EOFError, OSError) as error:  # also what a worker that ends while it hands over a batch leaves behind
        lost = [] if in_hand is None else _gone(in_hand)
        if not lost:
            raise
        raise _lost_worker(title, lost, note, in_hand) from error
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if pids := _named(error):
            raise _lost_worker(title, pids, note, in_hand) from error
        if caught := _WORKER.search(text):
            last = text.strip().splitlines()[-1]
            raise UserError(f"{title}: a data-loading worker failed: {last}", f"it raised {caught[1]}") from error
        if is_out_of_memory(error):
            raise UserError(
                f"{title}: out of memory in {note.place}{_at(note.in_hand())}: {one_line(text)}", *SMALLER
            ) from error
        raise


def _gone(in_hand: InHand) -> list[int]:
    """The workers that were ended. What broke shows before the process is seen to be gone: it is waited for."""
    deadline = time.monotonic() + ENDING_S
    try:
        while not (found := in_hand.gone()) and time.monotonic() < deadline:
            time.sleep(0.02)
    except RuntimeError as error:  # PyTorch raises it wherever this process is when it hears of the end
        return _named(error)
    return found


def _named(error: Exception) -> list[int]:
    """Ids of the workers whose end PyTorch tells of."""
    pids = _PIDS.search(str(error))
    return [] if pids is None else [int(pid) for pid in pids[1].split(",")]


def _lost_worker(title: str, pids: Sequence[int], note: NoteBatch, in_hand: InHand | None) -> UserError:
    cases = [] if in_hand is None else in_hand.of(pids, note.cases)
    return UserError(
        f"{title}: a data-loading worker ended unexpectedly{_at(cases)}",
        "most often the system ended it because memory ran out: trainer.workers=0 or fewer need less",
        "go on where it stopped: python -m pipeline train resume=RUN_FOLDER",
    )


def _at(cases: Sequence[str]) -> str:
    return f" at {', '.join(cases)}" if cases else ""
