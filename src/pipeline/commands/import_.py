"""``python -m pipeline import``: DICOM series, structure sets and segmentations to NIfTI and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.check import WORKERS, make_console
from pipeline.config.compose import Composed
from pipeline.config.schema_dicom import ImportConfig

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.data.dicom.fault import Fault

SHOWN = 50  # refused series listed; more are counted


def run(composed: Composed) -> int:
    """Exit status 0 when every series was converted, 2 when some were refused (the others are there)."""
    from pipeline.data.dicom import DicomSettings, import_dicom

    settings = composed.model
    assert isinstance(settings, ImportConfig)
    chosen = settings.model_dump(exclude={"source", "output", "labels", "workers", "trust"})
    output, console = Path(settings.output).expanduser().absolute(), make_console()
    with _bar() as report:
        result = import_dicom(
            Path(settings.source).expanduser().absolute(),
            output,
            DicomSettings(**chosen),
            labels=settings.labels,
            workers=settings.workers or WORKERS,
            report=report,
        )
    for note in result.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if result.faults:
        _print_faults(result.faults, console)
    masks = sum("label" in case.row for case in result.cases)
    before = f", {result.unchanged} of them before" if result.unchanged else ""
    refused = f"; {len(result.faults)} refused (see above)" if result.faults else ""
    said = f"{len(result.cases)} cases converted{before}, {masks} with a mask{refused}"
    classes = ", ".join(f"{value} {name}" for name, value in result.values.items())
    console.print(
        said + (f". Voxel values: {classes}" if classes else ""), markup=False, highlight=False, soft_wrap=True
    )
    if result.cases:
        console.print(f"Written: {output / 'cases.csv'}", markup=False, highlight=False, soft_wrap=True)
    return 2 if result.faults else 0


def _print_faults(faults: Sequence[Fault], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("Series", "File", "Fault", "What to do"):
        table.add_column(head, overflow="fold")
    for fault in faults[:SHOWN]:
        table.add_row(Text(fault.series), Text(fault.file), Text(fault.fault, "red"), Text(fault.remedy))
    console.print(table)
    if len(faults) > SHOWN:
        console.print(f"... and {len(faults) - SHOWN} more refused")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr: headers first, then cases."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {what: bar.add_task(what, total=None) for what in ("headers", "cases")}
        yield lambda what, done, total: bar.update(tasks[what], completed=done, total=total)
