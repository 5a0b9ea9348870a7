"""A sweep in this process: trials started until there are enough, whoever else works on them; then the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipeline.conf_dir import conf_dir
from pipeline.config.compose import Composed
from pipeline.config.schema import SweepConfig
from pipeline.errors import UserError
from pipeline.launch import Local
from pipeline.launch.job import Engine, Job
from pipeline.launch.queue import Queue
from pipeline.sweep.folder import Begun, SweepFolder, trial_name
from pipeline.sweep.objectives import Objective
from pipeline.sweep.parameters import Scalar, override_of
from pipeline.sweep.space import Space
from pipeline.sweep.study import STUDY_FILE, open_study, pruner_of, sampler_of, storage_errors
from pipeline.sweep.table import TrialTable
from pipeline.sweep.tracked import begin_run, end_run
from pipeline.sweep.trials import Trials
from pipeline.tracking.journal import RunOfJournal
from pipeline.training.duration import seconds_of
from pipeline.training.interrupt import Interrupt, Stopped
from pipeline.training.launched import engine_of, tell_failures

if TYPE_CHECKING:
    from optuna import Study

TOO_MANY_FAILED = 1  # exit status


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do. ``shared``: overrides of all its trials. ``folds``: those that each trial trains."""

    composed: Composed
    settings: SweepConfig
    space: Space
    objectives: tuple[Objective, ...]
    shared: tuple[str, ...]
    folds: tuple[int, ...]
    database: str | None  # None: sqlite in the sweep's folder
    extra: tuple[str, ...] = ()  # overrides of the trials that are not part of what they find

    def address(self, folder: SweepFolder) -> str:
        """Of the storage."""
        return self.database or f"sqlite:///{folder.path / STUDY_FILE}"

    def study(self, folder: SweepFolder, begun: Begun) -> Study:
        """The study, opened or made."""
        sweep = self.settings.sweep
        return open_study(self.address(folder), begun.study, self.objectives, pruner_of(sweep, len(self.folds)))


def run_trials(
    plan: Plan,
    folder: SweepFolder,
    begun: Begun,
    console: Console,
    interrupt: Interrupt,
    *,
    parent: RunOfJournal | None = None,
) -> int:
    """Run trials until all processes of the sweep together have enough; exit status 1 where too many failed.

    Raises Stopped when asked to stop, with the trials saved. ``parent``: the run of which that of the sweep is a part.
    """
    settings = plan.settings
    launch = settings.launch
    engine = engine_for(plan)
    try:
        with storage_errors(plan.address(folder)):
            study = plan.study(folder, begun)
            run = begin_run(
                settings, folder, {"sweep": settings.sweep.model_dump(), "trials": list(plan.shared)}, parent
            )
            trials = Trials(
                study,
                plan.space,
                settings.sweep,
                plan.objectives,
                folder,
                seed=settings.seed,
                folds=plan.folds,
                command=lambda number, values: command_of(plan, folder.trial(number), values, engine, run),
                say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
            )
            queue = Queue(
                trials, engine, retries=launch.retries, poll=seconds_of(launch.poll), grace=seconds_of(launch.grace)
            )
            failed = 0
            with interrupt.deferred(), TrialTable(folder, trials, plan.folds, console) as table:

                def show(entries: Sequence[object]) -> None:
                    trials.watch(queue.entries)
                    table.show(queue.entries)

                while not interrupt.requested:
                    queue.run(show, lambda: interrupt.requested)
                    gave_up = [entry for entry in queue.entries if entry.state == "failed"]
                    if gave_up[failed:]:
                        tell_failures(gave_up[failed:], console)
                        failed = len(gave_up)
                    if trials.over:
                        break
                    time.sleep(seconds_of(launch.poll))  # other processes work on the rest
            trials.release()
            counts = trials.counts()
    finally:
        engine.close()
    if interrupt.requested:
        end_run(settings, folder, "KILLED")
        raise Stopped(interrupt.signal)
    return 0 if counts.ended >= trials.wanted else TOO_MANY_FAILED


def engine_for(plan: Plan) -> Engine:
    """What runs the trials; without ``launch=`` one after the other on this machine. Raises UserError."""
    launch, sweep = plan.settings.launch, plan.settings.sweep
    if not launch.wait:
        raise UserError("launch.wait=false: a sweep draws trials while it runs", "leave launch.wait=true")
    jobs = min(sweep.at_once, sweep.trials)
    if launch.engine is not None:
        return engine_of(launch, jobs, plan.composed.trusted)
    engine = Local(processes=1)
    engine.expect(1)
    return engine


def command_of(
    plan: Plan, output: Path, values: dict[str, Scalar], engine: Engine, run: RunOfJournal | None
) -> tuple[str, ...]:
    """argv of the process that trains and evaluates a trial, or goes on with it."""
    main, *others = plan.composed.folders
    command = [sys.executable, "-m", "pipeline", "train"]
    command += [] if main == conf_dir().resolve() else ["--config-path", str(main)]
    for folder in others:
        command += ["--config-dir", str(folder)]
    command += [*plan.shared, *plan.extra]
    command += [override_of(plan.space.named(name), value) for name, value in values.items()]
    command += [f"output={output}", "resume=auto", "resume.allow=[trainer.threads]", "launch=none"]
    trainer = plan.settings.trainer
    if trainer.threads is None and engine.cores is not None:
        devices = trainer.devices if isinstance(trainer.devices, int) else 1
        command.append(f"trainer.threads={max(1, engine.cores // devices)}")
    if run is not None:
        command.append(f"tracking.parent={run.unique_key}")
    return tuple(command)


def show_plan(plan: Plan, output: Path, console: Console) -> int:
    """Print what the first trial would be, for ``--dry-run``; nothing is written."""
    import optuna

    engine = engine_for(plan)
    sweep = plan.settings.sweep
    study = optuna.create_study(sampler=sampler_of(sweep, plan.space, plan.settings.seed, 0))
    if sweep.sampler == "grid":
        grid = plan.space.grid(sweep.grid_points)
        console.print(f"grid of {len(grid)} points", highlight=False)
        study.enqueue_trial(grid[0])
    folder = SweepFolder(output)
    command = command_of(plan, folder.trial(0), plan.space.draw(study.ask()), engine, None)
    job = Job(trial_name(0), command, folder.log(0))
    console.print(f"{sweep.trials} trials, {engine.at_once or sweep.at_once} at once; the first:", highlight=False)
    console.print(engine.describe(job), highlight=False, markup=False, soft_wrap=True)
    return 0
