"""Read every file of a data set and list what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.compose import Composed
from pipeline.config.schema import TrainConfig
from pipeline.paths import cache_folder

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.data.integrity import CheckResult, CheckSettings, Fault

SAME = 10  # faults of one rule shown in full; check.json has all of them
WORKERS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
WIDTH = 200  # of lines that go to a file or pipe


def run(composed: Composed) -> int:
    """Print the faults of the data set, write check.json when ``output`` is named; exit status 0, or 2 for errors."""
    from pipeline.data.integrity import check_dataset
    from pipeline.data.readers import open_dataset

    settings = composed.model
    assert isinstance(settings, TrainConfig)
    console, cache = make_console(), cache_folder(settings.cache)
    dataset = open_dataset(settings.data.model_dump(), task_kind=settings.task, cache=cache, workers=WORKERS)
    for note in dataset.notes:
        console.print(note, markup=False, highlight=False)
    result = check_dataset(dataset, check_settings(settings), workers=WORKERS, progress=True, cache=cache)
    report_faults(result, console)
    if settings.output is not None:
        path = Path(settings.output).expanduser() / "check.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"name": dataset.name, "root": str(dataset.root), "notes": dataset.notes, **result.to_json()}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        console.print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)
    return 2 if result.errors else 0


def check_settings(settings: TrainConfig) -> CheckSettings:
    """What the check is to allow, as the configuration has it."""
    from pipeline.data.integrity import CheckSettings

    missing = settings.data.missing
    return CheckSettings(
        **settings.check.model_dump(exclude={"contact_sheet_cases"}),
        folds=None if settings.folds.predefined or settings.folds.file else settings.folds.count,
        predefined=settings.folds.predefined,
        missing_modality=missing.modality,
        missing_voxels=missing.voxels,
        missing_target=missing.target,
    )


def make_console(*, quiet: bool = False) -> Console:
    """A console whose lines are not cut where they go to a file or pipe."""
    from rich.console import Console

    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(width=WIDTH, quiet=quiet)


def report_faults(result: CheckResult, console: Console) -> None:
    """Print one table (fault, file, what to do), and a line that sums it up."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if result.faults:
        table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        table.add_column("")
        table.add_column("File", overflow="fold")
        table.add_column("Fault", overflow="fold")
        table.add_column("What to do", overflow="fold")
        for fault, more in _abridged(result.faults):
            style = "red" if fault.severity == "error" else "yellow"
            said = f"{fault.fault}" + (f" (and {more} more such, see check.json)" if more else "")
            table.add_row(Text(fault.severity, style), Text(fault.file), Text(said), Text(fault.remedy))
        console.print(table)
    files = result.read + result.remembered
    known = f", {result.remembered} unchanged" if result.remembered else ""
    console.print(
        f"{len(result.records)} cases, {files} files checked{known} in {result.seconds:.1f} s: "
        f"{_count(len(result.errors), 'error')}, {_count(len(result.warnings), 'warning')}",
        markup=False,
        highlight=False,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _abridged(faults: tuple[Fault, ...]) -> list[tuple[Fault, int]]:
    """The first faults of each rule; the last one shown carries the number of those left out."""
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.severity, fault.rule), []).append(fault)
    shown = []
    for group in groups.values():
        left = len(group) - SAME
        shown += [(fault, 0) for fault in group[: SAME - 1]]
        shown += [(fault, max(0, left)) for fault in group[SAME - 1 : SAME]]
    return shown
