"""``python -m pipeline train``: check the data, plan where that is asked for, cross-validate, record."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from pipeline.commands.check import WORKERS, check_settings, make_console, report_faults, tell
from pipeline.commands.plan import OWN_NAME, command_of, judge_overrides, plan_of, write_plan
from pipeline.config.compose import Composed
from pipeline.config.plans import PLAN_FILE, compose_with_plan, refuse_two_plans
from pipeline.config.schema import TrainConfig
from pipeline.errors import UserError
from pipeline.paths import cache_folder
from pipeline.ranks import RUN_FOLDER, rank


def run(composed: Composed) -> int:
    """Exit status 0 when every fold was trained and recorded, 130 after Ctrl-C."""
    from pipeline.data.integrity import check_dataset
    from pipeline.data.readers import open_dataset

    settings = composed.model
    assert isinstance(settings, TrainConfig)
    refuse_two_plans(composed)
    if settings.planning is not None:
        judge_overrides(composed, settings)
    console = make_console(quiet=rank() > 0)
    output, cache = run_folder(settings, composed.job_folder), cache_folder(settings.cache)
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
    if settings.planning is not None:
        plan = plan_of(dataset, checked, settings, cache, console)
        text = plan.text(command_of(OWN_NAME, composed.overrides))
        composed = compose_with_plan(composed, text, TrainConfig)
        settings = composed.model
        assert isinstance(settings, TrainConfig)
        if rank() == 0:
            write_plan(output / PLAN_FILE, text)
        tell(f"Plan: {plan.line} ({output / PLAN_FILE})", console)

    from pipeline.training.session import train

    return train(
        settings,
        composed.tree,
        dataset,
        checked,
        output=output,
        cache=cache,
        console=console,
        trusted=composed.trusted,
    )


def run_folder(settings: TrainConfig, job_folder: Path | None) -> Path:
    """``output``, a sweep job's folder, or outputs/<name>/<date_time>; it must be new or empty."""
    if rank() > 0:
        if RUN_FOLDER not in os.environ and settings.output is None:
            raise UserError("several processes need one folder", "name it: output=FOLDER")
        return Path(os.environ.get(RUN_FOLDER) or str(settings.output)).expanduser().absolute()
    if settings.output is not None:
        folder = Path(settings.output).expanduser().absolute()
    elif job_folder is not None:
        folder = job_folder
    else:
        moment = datetime.datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
        folder = Path("outputs", settings.name, moment).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: the output folder is not empty", "choose another with output=FOLDER", "or remove it"
        )
    os.environ[RUN_FOLDER] = str(folder)
    return folder
