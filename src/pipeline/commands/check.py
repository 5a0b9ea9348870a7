"""Read every file of a data set and list what is wrong with it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.compose import Composed
from pipeline.config.schema import TrainConfig
from pipeline.errors import UserError
from pipeline.json_file import write_json
from pipeline.paths import cache_folder

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.data.case import Dataset
    from pipeline.data.integrity import CheckResult, CheckSettings, Fault

SAME = 10  # faults of one rule shown in full; check.json has all of them
WORKERS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
WIDTH = 200  # of lines that go to a file or pipe


def run(composed: Composed) -> int:
    """Print the faults of the data set, write check.json and contact_sheet.png; exit status 0, or 2 for errors."""
    from pipeline.data.integrity import check_dataset
    from pipeline.data.readers import open_dataset

    settings = composed.model
    assert isinstance(settings, TrainConfig)
    console, cache = make_console(), cache_folder(settings.cache)
    dataset = open_dataset(settings.data.model_dump(), task_kind=settings.task, cache=cache, workers=WORKERS)
    tell(describe(dataset), console)
    for note in dataset.notes:
        tell(note, console)
    result = check_dataset(dataset, check_settings(settings), workers=WORKERS, progress=True, cache=cache)
    result = with_folds(result, dataset, settings)
    report_faults(result, console)
    named = dataset.name if dataset.name != settings.data.format else dataset.root.name  # a format is no name
    folder = Path(settings.output or Path("outputs", "check", folder_name(named))).expanduser()
    write(dataset, result, folder, settings.check.contact_sheet_cases, console)
    return 2 if result.errors else 0


def with_folds(result: CheckResult, dataset: Dataset, settings: TrainConfig) -> CheckResult:
    """The result with what is wrong with folds that the data or a file give, where nothing else is."""
    from pipeline.data.folds import folds_of
    from pipeline.data.integrity import Fault

    split = settings.folds
    drawn = not any(case.fold is not None for case in dataset.cases) and not split.predefined and split.file is None
    if result.errors or (drawn and split.scheme in ("kfold", "repeated", "holdout") and split.group == "patient"):
        return result
    try:
        folds_of(dataset, split.model_dump(), foreground=result.foreground(dataset), together=result.duplicates)
    except UserError as error:
        index = str(dataset.index or dataset.root)
        fault = Fault("error", None, index, error.cause, "; ".join(error.remedies), "folds")
        return replace(result, faults=(fault, *result.faults))
    return result


def describe(dataset: Dataset) -> str:
    """One line on what is checked."""
    index = f", listed in {dataset.index}" if dataset.index else ""
    return f"Checking dataset {dataset.name}: {len(dataset.cases)} cases of {len(dataset.patients)} patients{index}"


def folder_name(name: str) -> str:
    """A data set's name as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "data"


def write(dataset: Dataset, result: CheckResult, folder: Path, sheet_cases: int, console: Console) -> None:
    """Write check.json and a contact sheet of at most ``sheet_cases`` cases; raises UserError where it is refused."""
    content = {"name": dataset.name, "root": str(dataset.root), "notes": list(dataset.notes), **result.to_json()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "check.json", content)
    except OSError as error:
        raise UserError(
            f"{folder}: check.json cannot be written ({error.strerror or error})", "name another folder: output=FOLDER"
        ) from None
    written = "check.json"
    if sheet_cases:
        from pipeline.evaluation.contact_sheet import chosen_cases, contact_sheet, tiles

        cases = chosen_cases(dataset, result.faults, sheet_cases)
        title = f"{dataset.name}: {len(cases)} of {len(dataset.cases)} cases"
        names = dataset.labels.names if dataset.labels is not None else ()
        path = folder / "contact_sheet.png"
        contact_sheet(tiles(dataset, cases, result.faults), len(cases), path, class_names=names, title=title)
        written += " and contact_sheet.png"
    tell(f"Written: {written} in {folder}", console)


def tell(line: str, console: Console) -> None:
    """Print one line as it is, whatever brackets it holds."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def check_settings(settings: TrainConfig) -> CheckSettings:
    """What the check is to allow, as the configuration has it."""
    from pipeline.data.integrity import CheckSettings

    missing, split = settings.data.missing, settings.folds
    drawn = split.scheme in ("kfold", "repeated") and not split.predefined and not split.file
    return CheckSettings(
        **settings.check.model_dump(exclude={"contact_sheet_cases"}),
        folds=split.count if drawn and split.group == "patient" else None,
        predefined=split.predefined or split.scheme == "predefined",
        missing_modality=missing.modality,
        missing_voxels=missing.voxels,
        missing_target=missing.target,
        allow_outside=settings.data.allow_outside,
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
