"""The jobs of a run while they go on: one live table on a terminal, a line at every change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.launch.queue import Entry
from pipeline.training.duration import in_words
from pipeline.training.finished import is_finished
from pipeline.training.progress_file import FoldProgress
from pipeline.training.run_folder import is_owned
from pipeline.training.tracked import fold_key

LINE_EVERY = 60.0  # s between lines of a job that goes on, where there is no terminal
WORDS = {
    "waiting": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "stopped": "stopped",
    "again": "to be started again",
}


class JobTable:
    """What each job does, how far it is, how long it still takes."""

    def __init__(self, output: Path, console: Console) -> None:
        self._output = output
        self._console = console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._said: dict[str, tuple[str, int]] = {}
        self._next_line: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, entries: Sequence[Entry]) -> None:
        """Show the jobs as they are now."""
        if self._live is not None:
            self._live.update(self._table(entries))
            return
        for entry in entries:
            self._line(entry)

    def _table(self, entries: Sequence[Entry]) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for heading in ("job", "state", "", "left", "started as"):
            table.add_column(heading, justify="right" if heading == "left" else "left")
        for entry in entries:
            progress = self._progress(entry)
            how = f"{100 * progress.share:3.0f} %  {progress.text}" if progress is not None else ""
            left = in_words(progress.left) if progress is not None and progress.left is not None else ""
            where = entry.submitted.id if entry.submitted is not None else ""
            table.add_row(entry.job.name, _state(entry), Text(how), left, where)
        return table

    def _line(self, entry: Entry) -> None:
        name, now, key = entry.job.name, time.monotonic(), (entry.state, entry.tries)
        progress = self._progress(entry)
        if self._said.get(name) != key:
            where = f" as {entry.submitted.id}" if entry.state == "running" and entry.submitted is not None else ""
            self._console.print(f"{name}: {_state(entry)}{where}", highlight=False)
            self._said[name], self._next_line[name] = key, now + LINE_EVERY
        elif progress is not None and now >= self._next_line[name]:
            left = f", {in_words(progress.left)} left" if progress.left is not None else ""
            self._console.print(f"{name}: {progress.text}  {100 * progress.share:.0f} %{left}", highlight=False)
            self._next_line[name] = now + LINE_EVERY

    def _progress(self, entry: Entry) -> FoldProgress | None:
        return FoldProgress.read(self._output / entry.job.name) if entry.state == "running" else None


def _state(entry: Entry) -> str:
    words = WORDS[entry.state]
    if entry.state in ("again", "failed") and entry.status is not None:
        words += f" (exit status {entry.status})"
    return f"{words}, try {entry.tries}" if entry.tries > 1 and entry.state in ("waiting", "running") else words


def folds_in(output: Path) -> list[int]:
    """The folds that a run has begun."""
    numbers = (path.name.removeprefix("fold_") for path in output.glob("fold_*") if path.is_dir())
    return sorted(int(number) for number in numbers if number.isdecimal())


def tell_how_far(output: Path, folds: Sequence[int], console: Console) -> None:
    """Print what each fold of a run has come to."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("fold", "state", "", "left"):
        table.add_column(heading, justify="right" if heading == "left" else "left")
    for fold in folds:
        folder = output / fold_key(fold)
        progress = FoldProgress.read(folder)
        if is_finished(folder):
            table.add_row(str(fold), "done")
        elif progress is None:
            table.add_row(str(fold), "not begun")
        else:
            state = "running" if is_owned(folder) else "stopped"
            left = in_words(progress.left) if progress.left is not None else ""
            table.add_row(str(fold), state, Text(f"{100 * progress.share:3.0f} %  {progress.text}"), left)
    console.print(table)
