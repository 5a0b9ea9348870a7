"""``python -m pipeline report``: the results of a run or a sweep, or how far its folds are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.check import make_console
from pipeline.commands.fold import opened_again
from pipeline.commands.predict import recorded_folder
from pipeline.config.compose import Composed
from pipeline.config.recorded import EXPERIMENT_FILE
from pipeline.config.schema import ReportConfig
from pipeline.config.yaml_files import shown
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.training.interrupt import Interrupt

UNFINISHED = 1  # exit status


def run(composed: Composed) -> int:
    """Exit status 0 with the results of a finished run, 1 while folds are missing."""
    from pipeline.training.interrupt import until_stopped

    return until_stopped(partial(_run, composed))


def _run(composed: Composed, interrupt: Interrupt) -> int:
    from pipeline.commands.sweep import report_of_sweep
    from pipeline.json_file import read_json
    from pipeline.sweep.folder import SWEEP_FILE
    from pipeline.training.job_table import folds_in, tell_how_far
    from pipeline.training.jobs import Launched
    from pipeline.training.results import tell_results
    from pipeline.training.run_folder import SUMMARY_FILE, finished

    settings = composed.model
    assert isinstance(settings, ReportConfig)
    console = make_console()
    folder = Path(settings.run).expanduser().absolute()
    if not folder.is_dir():
        folder = recorded_folder(settings.run, settings.tracking)
    if (folder / SWEEP_FILE).is_file():
        return report_of_sweep(folder, console)
    launched = Launched.read(folder)
    if launched is None or launched.summarised(folder):
        if finished(folder):
            tell_results(read_json(folder / SUMMARY_FILE), folder, console)
            return 0
        if not (folder / EXPERIMENT_FILE).is_file():
            raise UserError(f"run={settings.run}: {folder} is not the folder of a run, it has no {EXPERIMENT_FILE}")
    elif not launched.unfinished(folder):
        from pipeline.training.prepare import prepare
        from pipeline.training.sum_up import sum_up

        run = opened_again(folder, composed.trusted, console, interrupt, {})
        tell_results(sum_up(prepare(run, first=None).experiment, launched.folds), folder, console)
        return 0
    tell_how_far(folder, launched.folds if launched is not None else folds_in(folder), console)
    console.print(f"To go on with what does not run: python -m pipeline train resume={shown(folder)}", soft_wrap=True)
    return UNFINISHED
