"""``python -m pipeline plan``: measure a data set, and write a configuration for it with every reason."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.check import WORKERS, check_settings, make_console, report_faults, tell
from pipeline.conf_dir import conf_dir
from pipeline.config.compose import Composed
from pipeline.config.plans import GROUP, compose_with_plan
from pipeline.config.schema import PlanConfig, TrainConfig
from pipeline.errors import UserError
from pipeline.paths import cache_folder

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.data.case import Dataset
    from pipeline.data.fingerprint import Fingerprint
    from pipeline.data.integrity import CheckResult
    from pipeline.planning import Budget, Plan

ABOUT_DATA = ("data", "experiment", "task")  # keys that say what the data are
AUTO = "auto"  # the experiment that plans by itself
OWN_NAME = "my"  # of a plan that a run made for itself, once it is copied to conf/plan


def run(composed: Composed) -> int:
    """Exit status 0 when the plan is written (or stands there already)."""
    settings = composed.model
    assert isinstance(settings, PlanConfig)
    path = plan_file(settings.output)

    from pipeline.data.integrity import check_dataset
    from pipeline.data.readers import open_dataset
    from pipeline.planning import make_plan

    console, cache = make_console(), cache_folder(settings.cache)
    dataset = open_dataset(settings.data.model_dump(), task_kind=settings.task, cache=cache, workers=WORKERS)
    for note in dataset.notes:
        tell(note, console)
    checked = check_dataset(dataset, check_settings(settings), workers=WORKERS, progress=True, cache=cache)
    report_faults(checked, console)
    checked.raise_errors()
    assert settings.planning is not None
    plan = make_plan(measured(dataset, checked, settings, cache, console), settings.planning, budget_of(settings))
    text = plan.text(command_of(path.stem, composed.overrides))
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{path}: is there and differs from the plan of these data and this budget",
            "remove it, or choose another name: output=FOLDER/plan/NAME.yaml",
        )
    write_plan(path, text)
    tell(f"Plan: {plan.line}", console)
    tell(f"Written: {path}", console)
    shipped = path.parent.parent.resolve() == conf_dir().resolve()
    place = "" if shipped else f"--config-dir {shlex.quote(os.path.relpath(path.parent.parent))} "
    if "experiment" in composed.chosen:
        tell("Where the experiment gives a value too it wins over the plan; naming the data alone avoids that", console)
    tell(f"Train with it: python -m pipeline {place}{command_of(path.stem, composed.overrides, root=True)}", console)
    return 0


def measured(
    dataset: Dataset, checked: CheckResult, settings: TrainConfig, cache: Path, console: Console
) -> Fingerprint:
    """Measure a checked data set, or remember it. Raises UserError."""
    from pipeline.data.fingerprint import FingerprintSettings, fingerprint_dataset
    from pipeline.progress_bar import progress_bar

    with progress_bar(console, "fingerprint") as report:
        return fingerprint_dataset(
            dataset,
            {case_id: record.sha256 for case_id, record in checked.records.items()},
            FingerprintSettings.of(settings.fingerprint.model_dump()),
            data_hash=checked.data_hash,
            workers=WORKERS,
            cache=cache,
            report=report,
        )


def plan_and_compose(composed: Composed, fingerprint: Fingerprint, console: Console) -> tuple[Plan, str, Composed]:
    """Plan, the text of the plan, and the configuration with the plan underneath.

    Where the user gives sizes of their own, the plan keeps the axes in the order in which they think of them.
    Raises UserError, ConfigurationMistakes.
    """
    from pipeline.planning import given_in_order, make_plan

    settings = composed.model
    assert isinstance(settings, TrainConfig)
    assert settings.planning is not None
    rules, budget, command = settings.planning, budget_of(settings), command_of(OWN_NAME, composed.overrides)
    turned = make_plan(fingerprint, rules, budget)
    plan = make_plan(fingerprint, rules.model_copy(update={"short_axis": 0}), budget)
    text = plan.text(command)
    found = compose_with_plan(composed, text, TrainConfig)
    if turned.text(command) != text:
        given = given_in_order(plan.values, found.tree)
        if not given:
            plan, text = turned, turned.text(command)
            found = compose_with_plan(composed, text, TrainConfig)
        else:
            tell(f"Plan: the axes stay in the order RAS, in which {' and '.join(given)} are given", console)
    return plan, text, found


def budget_of(settings: TrainConfig) -> Budget:
    """What the user grants."""
    from pipeline.planning import Budget
    from pipeline.training.device import accelerator_kind
    from pipeline.training.devices import processes_of
    from pipeline.training.duration import seconds_of

    granted = settings.plan
    assert granted is not None
    return Budget(
        text=granted.budget,
        seconds=None if granted.budget == "none" else seconds_of(granted.budget),
        memory_gb=granted.memory_gb,
        accelerator="gpu" if accelerator_kind(granted.accelerator) == "cuda" else "cpu",
        devices=processes_of(settings.trainer).count,
    )


def judge_overrides(composed: Composed, settings: TrainConfig) -> None:
    """Raise what is wrong with overrides of a network, loss or optimizer that the budget chooses, before data are read.

    What becomes of the transforms depends on the data: overrides of those are judged with the plan.
    """
    from pipeline.planning import choices_text

    assert settings.planning is not None
    text = choices_text(settings.task, settings.planning, budget_of(settings))
    compose_with_plan(composed, text, TrainConfig, deferred={"transforms"} - composed.chosen)


def plan_file(output: str) -> Path:
    """The file to write. Raises UserError where it could not be chosen as an option of the group ``plan``."""
    path = Path(output).expanduser().absolute()
    if path.suffix != ".yaml" or path.parent.name != GROUP:
        folder = path.parent if path.parent.name == GROUP else path.parent / GROUP
        raise UserError(
            f"output={output}: a plan is a .yaml file in a folder called {GROUP}, so that {GROUP}=NAME finds it",
            f"output={folder / (path.stem + '.yaml')}",
        )
    if path.is_dir():
        raise UserError(f"output={output}: is a folder")
    return path


def write_plan(path: Path, text: str) -> None:
    """Write a plan, whole or not at all. Raises UserError."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}", "name another: output=FILE") from None


def command_of(name: str, overrides: Sequence[str], *, root: bool = False) -> str:
    """The arguments that train with the plan ``name``, with all that the user said of the data.

    ``FOLDER`` stands for the data's root (``root``: the root itself), so that a plan does not depend on where data lie.
    """
    words = [f"{GROUP}={name}"]
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "data.root" and value != "null" and not root:
            words.append("data.root=FOLDER")
        elif key.lstrip("+~").partition(".")[0] in ABOUT_DATA and override != f"experiment={AUTO}":
            words.append(shlex.quote(override))
    return " ".join(words)
