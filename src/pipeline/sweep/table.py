"""The trials while they run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from pipeline.launch.queue import Entry
from pipeline.sweep.folder import SweepFolder
from pipeline.sweep.parameters import short
from pipeline.sweep.trials import Trials
from pipeline.training.finished import is_finished
from pipeline.training.job_table import JobTable
from pipeline.training.progress_file import FoldProgress
from pipeline.training.tracked import fold_key


class TrialTable(JobTable):
    """What each trial was given, in which fold it is, how it does, how long it still takes."""

    def __init__(self, folder: SweepFolder, trials: Trials, folds: Sequence[int], console: Console) -> None:
        super().__init__(folder.path, console)
        self._folder = folder
        self._trials = trials
        self._folds = folds

    def _progress(self, entry: Entry) -> FoldProgress | None:
        mine = self._trials.mine.get(entry.job.name)
        if mine is None or entry.state != "running":
            return None
        folder = self._folder.trial(mine.trial.number)
        done = [is_finished(folder / fold_key(fold)) for fold in self._folds]
        ended = done.index(False) if False in done else len(done)
        now = FoldProgress.read(folder / fold_key(self._folds[min(ended, len(done) - 1)]))
        given = short(mine.values)
        if now is None:
            return FoldProgress(ended / len(done), None, given)
        folds_left = len(done) - min(ended + 1, len(done))
        taken = now.left / (1 - now.share) if now.left is not None and now.share < 1 else None
        left = None if now.left is None or taken is None else now.left + folds_left * taken
        where = f"fold {ended + 1}/{len(done)}  " if len(done) > 1 else ""
        return FoldProgress((ended + now.share) / len(done), left, f"{given}  {where}{now.text}")
