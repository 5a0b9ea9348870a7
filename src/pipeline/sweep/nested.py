"""Nested cross-validation of a sweep: settings chosen on inner folds, scored on cases that no choice has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from pipeline.data.case import Dataset
from pipeline.data.folds import Fold, write_folds
from pipeline.errors import UserError
from pipeline.evaluation.cases import CASES_FILE, read_cases, write_cases
from pipeline.evaluation.report import print_summary
from pipeline.evaluation.summary import summarise
from pipeline.json_file import read_json, write_json
from pipeline.launch.job import Job
from pipeline.launch.queue import Queue
from pipeline.sweep.folder import Begun, SweepFolder
from pipeline.sweep.parameters import Scalar, short
from pipeline.sweep.report import best_of, report_sweep
from pipeline.sweep.run import Plan, command_of, engine_for, run_trials
from pipeline.sweep.tracked import begin_run, end_run
from pipeline.tracking.lock import Lock
from pipeline.training.duration import seconds_of
from pipeline.training.interrupt import Interrupt, Stopped
from pipeline.training.launched import tell_failures
from pipeline.training.run_folder import SUMMARY_FILE, finished

FOLDS_FILE = "folds.json"  # the inner folds of an outer one
CHOSEN = "chosen"  # the run of an outer fold with the settings that its inner folds chose
NESTED_FILE = "nested.json"
# What draws folds gives way to the file that lists the inner ones.
GIVEN = ("folds.inner=null", "folds.run=null", "folds.scheme=kfold", "folds.repeats=1", "folds.predefined=false")


def outer_folder(folder: SweepFolder, fold: int) -> SweepFolder:
    """The sweep that chooses for an outer fold."""
    return SweepFolder(folder.path / f"outer_{fold}")


def run_nested(
    plan: Plan, folder: SweepFolder, begun: Begun, folds: Sequence[Fold], dataset: Dataset, console: Console,
    interrupt: Interrupt,
) -> int:  # fmt: skip
    """Sweep on the inner folds of each outer one, train with what they chose, pool; exit status 1 where one failed.

    Varma and Simon, BMC Bioinformatics 2006.
    """
    if len(plan.objectives) > 1:
        raise UserError("folds.inner: needs one objective to choose by", "give one, or set folds.inner=null")
    settings = plan.settings
    run = begin_run(settings, folder, {"sweep": settings.sweep.model_dump(), "trials": list(plan.shared)})
    try:
        for fold in folds:
            inner = outer_folder(folder, fold.index)
            of_fold = plan_of_fold(plan, inner, len(fold.inner))
            inner.path.mkdir(exist_ok=True)
            name = f"{begun.study}_outer_{fold.index}"
            inner_begun = inner.begin(plan.composed.tree, begun.overrides, plan.composed.folders, begun.storage, name)
            with inner.one_at_a_time("folds"):
                write_folds(inner.path / FOLDS_FILE, fold.inner, dataset, settings.folds.seed)
            console.print(f"\nOuter fold {fold.index}: choosing on its {len(fold.inner)} inner folds", highlight=False)
            status = run_trials(of_fold, inner, inner_begun, console, interrupt, parent=run)
            report_sweep(of_fold, inner, inner_begun, console, tracked=True, nested=True)
            if status:
                return status
            if not _train_chosen(of_fold, inner, inner_begun, fold.index, console, interrupt):
                return 1
    except Stopped:
        end_run(settings, folder, "KILLED")
        raise
    report_nested(plan, folder, [fold.index for fold in folds], console)
    end_run(settings, folder, "FINISHED", files={folder.path / NESTED_FILE: "", folder.path / CASES_FILE: ""})
    return 0


def plan_of_fold(plan: Plan, inner: SweepFolder, count: int) -> Plan:
    """The plan of the sweep on the inner folds of an outer one."""
    extra = (*GIVEN, f"folds.file={inner.path / FOLDS_FILE}")
    return replace(plan, extra=extra, folds=tuple(range(count)))


def report_nested(plan: Plan, folder: SweepFolder, folds: Sequence[int], console: Console) -> bool:
    """Pool the outer folds, write and print them; False while one is missing."""
    chosen = {fold: outer_folder(folder, fold).path / CHOSEN for fold in folds}
    missing = [fold for fold, path in chosen.items() if not finished(path)]
    if missing:
        console.print(f"Outer folds that are not scored yet: {', '.join(map(str, missing))}", highlight=False)
        return False
    table = pd.concat([read_cases(path / CASES_FILE) for path in chosen.values()], ignore_index=True)
    write_cases(table, folder.path / CASES_FILE)
    first: Mapping[str, Any] = read_json(next(iter(chosen.values())) / SUMMARY_FILE)
    how = plan.settings.evaluation
    names = first.get("confusion_matrix", {}).get("classes", ())
    block = summarise(plan.settings.task, table, names, folds=list(folds), resamples=how.resamples, seed=how.seed)
    head = {
        "experiment": f"{plan.settings.name}, nested",
        "unit": first["unit"],
        "folds": [{"fold": fold} for fold in folds],
        "n_cases": int(table["case_id"].nunique()),
        "n_patients": int(table["patient_id"].nunique()),
        "chosen": {str(fold): read_json(path.parent / f"{CHOSEN}.json") for fold, path in chosen.items()},
    }
    write_json(folder.path / NESTED_FILE, head | block)
    print_summary(head | block, console)
    for fold in folds:
        console.print(f"Chosen for outer fold {fold}: {short(head['chosen'][str(fold)]['values'])}", highlight=False)
    console.print(
        "No case above had a part in the choice of the settings it was predicted with: this is what sweep and training "
        "together are worth. Settings to go on with: the same sweep with folds.inner=null.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Results: {folder.path}", highlight=False, soft_wrap=True)
    return True


def _train_chosen(
    plan: Plan, inner: SweepFolder, begun: Begun, fold: int, console: Console, interrupt: Interrupt
) -> bool:
    """Train the outer fold with the best settings of its sweep, in one process of all; False where that failed."""
    best = best_of(plan.study(inner, begun))[0]
    output = inner.path / CHOSEN
    lock = Lock(inner.path / "jobs" / f"{CHOSEN}.lock")
    while not lock.acquire(1.0):  # another process trains it
        interrupt.check()
    try:
        if finished(output):
            return True
        write_json(inner.path / f"{CHOSEN}.json", {"trial": best.number, "score": best.value, "values": best.params})
        engine = engine_for(plan)
        try:
            run = begin_run(plan.settings, inner, {})
            of_outer = replace(plan, extra=(f"folds.run=[{fold}]",))
            values: dict[str, Scalar] = dict(best.params)
            command = command_of(of_outer, output, values, engine, run)
            source = _Once(Job(CHOSEN, command, inner.path / "jobs" / f"{CHOSEN}.log"), output)
            launch = plan.settings.launch
            poll, grace = seconds_of(launch.poll), seconds_of(launch.grace)
            queue = Queue(source, engine, retries=launch.retries, poll=poll, grace=grace)
            console.print(f"Outer fold {fold}: training with trial {best.number}", highlight=False)
            with interrupt.deferred():
                entries = queue.run(lambda entries: None, lambda: interrupt.requested)
        finally:
            engine.close()
        interrupt.check()
        end_run(plan.settings, inner, "FINISHED" if finished(output) else "FAILED")
        tell_failures([entry for entry in entries if entry.state == "failed"], console)
        return finished(output)
    finally:
        lock.release()


class _Once:
    """One job, done when its run has its summary."""

    def __init__(self, job: Job, output: Path) -> None:
        self._jobs = [job]
        self._output = output

    def next(self) -> Job | None:
        return self._jobs.pop() if self._jobs else None

    def ended(self, job: Job, status: int | None) -> bool:
        return finished(self._output)

    def failed(self, job: Job, status: int | None) -> None:
        """Told by who waits for it."""
