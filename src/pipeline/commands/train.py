"""``python -m pipeline train``: check the data, plan where that is asked for, cross-validate, record, go on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.check import WORKERS, check_settings, make_console, report_faults, tell
from pipeline.commands.plan import judge_overrides, measured, plan_and_compose, write_plan
from pipeline.config.compose import Composed
from pipeline.config.plans import PLAN_FILE, refuse_two_plans
from pipeline.config.recorded import (
    EXPERIMENT_FILE,
    FREE_GROUPS,
    changed_keys,
    read_plain_yaml,
    record,
    recorded_configuration,
    refuse_changes,
)
from pipeline.config.schema import TrainConfig
from pipeline.errors import UserError
from pipeline.paths import cache_folder
from pipeline.ranks import rank

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.data.case import Dataset
    from pipeline.data.integrity import CheckResult
    from pipeline.training.interrupt import Interrupt


def run(composed: Composed) -> int:
    """Exit status 0 when every fold was trained and recorded; 130, 143 or 138 after Ctrl-C, SIGTERM or SIGUSR1."""
    from pipeline.training.interrupt import until_stopped

    return until_stopped(partial(_run, composed))


def _run(composed: Composed, interrupt: Interrupt) -> int:
    from pipeline.tracking.uri import artifact_root, store_uri
    from pipeline.training.launched import show_jobs, train_by_jobs
    from pipeline.training.prepare import Opened
    from pipeline.training.run_folder import interrupted_folder, named_folder, new_folder, release_folders
    from pipeline.training.session import train

    composed = as_recorded(composed)
    settings = composed.model
    assert isinstance(settings, TrainConfig)
    refuse_two_plans(composed)
    if settings.tracking.enabled:  # mistakes there are told before the data are read
        store_uri(settings.tracking.uri, Path("outputs", "mlflow.db").absolute())
        artifact_root(settings.tracking.artifacts)
    if settings.planning is not None:
        judge_overrides(composed, settings)
    wanted = settings.resume.run
    given = composed.job_folder if settings.output is None else named_folder(settings.output)
    output = None if wanted else new_folder(given, settings.name)
    try:
        console = make_console(quiet=rank() > 0)
        cache = cache_folder(settings.cache)
        dataset, checked = opened(settings, cache, console)
        plan = None
        if settings.planning is not None:
            fingerprint = measured(dataset, checked, settings, cache, console)
            plan, text, composed = plan_and_compose(composed, fingerprint, console)
            settings = composed.model
            assert isinstance(settings, TrainConfig)
        resumed = False
        if wanted:
            output = interrupted_folder(wanted, composed.tree, given, settings.name)
            resumed = output is not None
            output = output or new_folder(given, settings.name)
        assert output is not None
        if resumed:
            recorded = read_plain_yaml(output / EXPERIMENT_FILE)
            refuse_changes(output, changed_keys(recorded, composed.tree), settings.resume.allow)
            tell(f"Going on with {output}", console)
        elif rank() == 0 and not settings.launch.dry_run:
            record(output / EXPERIMENT_FILE, composed.tree)
        if plan is not None and rank() == 0 and not settings.launch.dry_run:
            write_plan(output / PLAN_FILE, text)
            tell(f"Plan: {plan.line} ({output / PLAN_FILE})", console)
        run = Opened(
            settings,
            composed.tree,
            dataset,
            checked,
            output=output,
            cache=cache,
            console=console,
            trusted=composed.trusted,
            interrupt=interrupt,
        )
        if settings.launch.dry_run:
            return show_jobs(run)
        if settings.launch.engine is not None:
            return train_by_jobs(run, resumed=resumed)
        return train(run, resumed=resumed)
    finally:
        release_folders()


def as_recorded(composed: Composed) -> Composed:
    """The configuration of the run that ``resume=FOLDER`` names, where the command line chooses no other.

    How it is launched and where it is tracked may be chosen anew.
    """
    settings = composed.model
    assert isinstance(settings, TrainConfig)
    wanted = settings.resume.run
    if wanted in (None, "auto") or composed.chosen - FREE_GROUPS:
        return composed
    assert wanted is not None
    return recorded_configuration(
        Path(wanted).expanduser().absolute(),
        TrainConfig,
        overrides=[text for text in composed.overrides if group_of(text) not in composed.chosen],
        values={group: composed.tree[group] for group in composed.chosen},
    )


def group_of(override: str) -> str:
    """``launch`` of ``launch=local`` and of ``launch.engine.cores=1``."""
    return override.lstrip("+~").partition("=")[0].partition(".")[0]


def opened(settings: TrainConfig, cache: Path, console: Console) -> tuple[Dataset, CheckResult]:
    """The data set, read and checked; raises UserError where anything is wrong with it."""
    from pipeline.data.integrity import check_dataset
    from pipeline.data.readers import open_dataset

    dataset = open_dataset(settings.data.model_dump(), task_kind=settings.task, cache=cache, workers=WORKERS)
    for note in dataset.notes:
        console.print(note, highlight=False, markup=False)
    checked = check_dataset(dataset, check_settings(settings), workers=WORKERS, progress=True, cache=cache)
    report_faults(checked, console)
    if checked.errors:
        raise UserError(
            f"{len(checked.errors)} error(s) in the data, see the table above",
            "mend the files, or leave the cases out",
            "all of them in a file: python -m pipeline check with the same overrides",
        )
    return dataset, checked
