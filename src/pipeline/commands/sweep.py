"""``python -m pipeline sweep``: trials of one experiment with drawn settings; the best of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.check import make_console, tell
from pipeline.commands.train import opened
from pipeline.config.compose import Composed, compose
from pipeline.config.schema import SweepConfig
from pipeline.config.validate import validate
from pipeline.config.yaml_files import shown
from pipeline.errors import UserError
from pipeline.paths import cache_folder

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.data.case import Dataset
    from pipeline.data.folds import Fold
    from pipeline.sweep.folder import Begun
    from pipeline.sweep.run import Plan
    from pipeline.training.interrupt import Interrupt

UNFINISHED = 1  # exit status of the report
OF_SWEEP = ("sweep", "output", "resume", "launch")  # sections that are not those of a trial


def run(composed: Composed) -> int:
    """Exit status 0 with as many trials as were asked for, 1 where too many failed; 130, 143, 138 after a signal."""
    from pipeline.training.interrupt import until_stopped

    return until_stopped(partial(_run, composed))


def _run(composed: Composed, interrupt: Interrupt) -> int:
    from pipeline.sweep.folder import SweepFolder, require_no_password
    from pipeline.sweep.nested import run_nested
    from pipeline.sweep.report import report_sweep
    from pipeline.sweep.run import run_trials, show_plan
    from pipeline.sweep.study import STUDY_FILE, require_optuna
    from pipeline.training.interrupt import Stopped
    from pipeline.training.run_folder import free_folder, named_folder

    require_optuna()
    composed, given = as_begun(composed)
    settings = composed.model
    assert isinstance(settings, SweepConfig)
    require_no_password(composed.overrides)
    console = make_console()
    plan = plan_of(composed)
    dataset, folds = opened_folds(settings)
    plan = replace(plan, folds=tuple(fold.index for fold in folds))
    if settings.launch.dry_run:
        return show_plan(plan, given or Path("outputs", settings.name, "DATE").absolute(), console)
    if given is None and settings.output is not None:
        given = named_folder(settings.output)
    folder = SweepFolder(given if given is not None else free_folder(Path("outputs", settings.name).absolute()))
    folder.path.mkdir(parents=True, exist_ok=True)
    name = "sweep" if settings.sweep.storage is None else ""  # alone in its file, or one of many in a database
    storage = settings.sweep.storage or STUDY_FILE
    recorded = [override for override in composed.overrides if _section(override) not in ("output", "resume")]
    begun = folder.begin(composed.tree, recorded, composed.folders, storage, name)
    tell(f"Sweep: {folder.path}", console)
    try:
        if folds[0].inner:
            return run_nested(plan, folder, begun, folds, dataset, console, interrupt)
        status = run_trials(plan, folder, begun, console, interrupt)
    except Stopped:
        tell(f"\nStopped. To go on: python -m pipeline sweep resume={shown(folder.path)}", console)
        raise
    report_sweep(plan, folder, begun, console, tracked=True)
    return status


def report_of_sweep(folder: Path, console: Console) -> int:
    """Report a sweep as it stands; exit status 1 while trials are missing."""
    from pipeline.sweep.counts import counts_of
    from pipeline.sweep.folder import Begun, SweepFolder
    from pipeline.sweep.nested import outer_folder, plan_of_fold, report_nested
    from pipeline.sweep.report import report_sweep
    from pipeline.sweep.study import require_optuna

    require_optuna()
    begun = Begun.read(folder)
    composed = composed_again(begun, [])
    settings = composed.model
    assert isinstance(settings, SweepConfig)
    plan, whole = plan_of(composed), SweepFolder(folder)
    outer = sorted(int(path.name.removeprefix("outer_")) for path in folder.glob("outer_*"))
    for fold in outer:
        inner = outer_folder(whole, fold)
        of_fold = plan_of_fold(plan, inner, 0)
        report_sweep(of_fold, inner, Begun.read(inner.path), console, tracked=False, nested=True)
    if outer:
        return 0 if report_nested(plan, whole, outer, console) else UNFINISHED
    report_sweep(plan, whole, begun, console, tracked=False)
    counts = counts_of(plan.study(whole, begun).get_trials(deepcopy=False))
    return UNFINISHED if counts.running or counts.ended < settings.sweep.trials else 0


def as_begun(composed: Composed) -> tuple[Composed, Path | None]:
    """The sweep in the folder that ``resume=FOLDER`` names, with what the command line changes of it; that folder."""
    from pipeline.sweep.folder import Begun

    settings = composed.model
    assert isinstance(settings, SweepConfig)
    wanted = settings.resume.run
    if wanted is None:
        return composed, None
    if wanted == "auto":
        if settings.output is None:
            raise UserError(
                "resume=auto: of a sweep only the one in output=FOLDER is gone on with", "name it: resume=FOLDER"
            )
        return composed, None
    folder = Path(wanted).expanduser().absolute()
    begun = Begun.read(folder)
    more = [override for override in composed.overrides if _section(override) not in ("output", "resume")]
    return composed_again(begun, more), folder


def composed_again(begun: Begun, more: Sequence[str]) -> Composed:
    """The configuration of a sweep from its recorded command line; its working folder becomes this process's."""
    try:
        os.chdir(begun.working_folder)
    except OSError as error:
        raise UserError(
            f"{begun.working_folder}: the folder in which the sweep was begun cannot be entered: {error.strerror}"
        ) from error
    main, *others = map(Path, begun.folders)
    composition = compose("sweep", [*begun.overrides, *more], config_dirs=others, conf=main)
    return validate(composition, SweepConfig)


def opened_folds(settings: SweepConfig) -> tuple[Dataset, list[Fold]]:
    """The data, and the folds that each trial trains. Raises UserError where anything is wrong with the data."""
    from pipeline.data.folds import folds_of
    from pipeline.training.experiment import folds_to_run

    dataset, checked = opened(settings, cache_folder(settings.cache), make_console())
    folds = folds_of(
        dataset,
        settings.folds.model_dump(),
        foreground=checked.foreground(dataset),
        together=checked.duplicates,
    )
    return dataset, folds_to_run(settings, folds)


def plan_of(composed: Composed) -> Plan:
    """What the sweep is to do, its folds aside; raises UserError with everything that is wrong with it."""
    from pipeline.sweep.objectives import objectives_of
    from pipeline.sweep.run import Plan
    from pipeline.sweep.space_check import require_fits, space_of
    from pipeline.sweep.study import require_possible, storage_address

    settings = composed.model
    assert isinstance(settings, SweepConfig)
    sweep = settings.sweep
    space = space_of(sweep.space, composed.folders)
    objectives = objectives_of(settings, sweep.objectives)
    require_possible(sweep, space, objectives, settings.task)
    shared = tuple(override for override in composed.overrides if _section(override) not in OF_SWEEP)
    require_fits(space, composed, shared)
    return Plan(composed, settings, space, objectives, shared, (), storage_address(sweep.storage))


def _section(override: str) -> str:
    """The section of the configuration that an override belongs to."""
    key = override.lstrip("+~").partition("=")[0]
    return key.partition("@")[0].partition("/")[0].partition(".")[0]
