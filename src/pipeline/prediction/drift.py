"""Whether the images to predict are like those the run was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.data.case import Case
from pipeline.data.fingerprint import FINGERPRINT_FILE, DriftSettings, Fingerprint, find_drift
from pipeline.json_file import write_json

DRIFT_FILE = "drift.json"


def warn_of_drift(
    run_folder: Path, cases: Sequence[Case], output: Path, settings: DriftSettings, console: Console
) -> None:
    """Compare ``cases`` with the fingerprint of a run: one line per finding, and drift.json in ``output``.

    A run without a fingerprint is told of. Raises UserError for a fingerprint or an image that cannot be read.
    """
    (output / DRIFT_FILE).unlink(missing_ok=True)  # of an earlier prediction
    if not settings.enabled:
        return
    path = run_folder / FINGERPRINT_FILE
    if not path.is_file():
        console.print(f"The run has no {FINGERPRINT_FILE}: the images are not compared with its data", markup=False)
        return
    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("comparing", total=len(cases))
        drift = find_drift(
            Fingerprint.read(path),
            cases,
            settings,
            workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_json(output / DRIFT_FILE, drift.to_json())
    for line in drift.lines:
        console.print(f"warning: drift: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
