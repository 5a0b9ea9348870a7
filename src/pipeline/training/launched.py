"""A training whose folds are jobs: prepared here, trained elsewhere, summarised by whoever sees the last fold done."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from rich.console import Console

from pipeline.config.build import build
from pipeline.config.recorded import EXPERIMENT_FILE, record
from pipeline.config.schema_launch import Launch
from pipeline.errors import UserError
from pipeline.launch.job import Engine
from pipeline.launch.queue import MISTAKE, Entry, Queue
from pipeline.training.before import Before
from pipeline.training.begin import found_here, tags_of
from pipeline.training.crossval import start_parent
from pipeline.training.devices import threads_of
from pipeline.training.duration import seconds_of
from pipeline.training.engine import split_choice
from pipeline.training.experiment import folds_to_run
from pipeline.training.interrupt import Stopped
from pipeline.training.job_table import JobTable
from pipeline.training.jobs import JOBS_FOLDER, FoldJobs, Launched, fold_job
from pipeline.training.prepare import Opened, prepare
from pipeline.training.results import tell_results
from pipeline.training.session import tell_how_to_go_on, tell_what_trains
from pipeline.training.sum_up import end_parent, sum_up
from pipeline.training.tracked import open_tracker

TAIL = 15  # lines of a failed job's log


def engine_of(launch: Launch, jobs: int, trusted: Sequence[str]) -> Engine:
    """What runs ``jobs`` jobs; raises UserError where it lacks something."""
    engine: Engine = build(launch.engine, "launch.engine", trusted)
    if not launch.wait and not (engine.outlived and engine.at_once is None):
        raise UserError(
            "launch.wait=false: only the queue of Slurm goes on without this process, which hands it all jobs at once",
            "set launch=slurm launch.engine.at_once=null, or leave launch.wait=true",
        )
    engine.expect(jobs)
    return engine


def show_jobs(opened: Opened) -> int:
    """Print what would be run, for ``--dry-run``; nothing is prepared or written."""
    console, launch = opened.console, opened.settings.launch
    folds = [fold.index for fold in folds_to_run(opened.settings, opened.folds())]
    if launch.engine is None:
        console.print(f"in this process, one after the other: folds {', '.join(map(str, folds))}", highlight=False)
        return 0
    engine = engine_of(launch, len(folds), opened.trusted)
    for fold in folds:
        job = fold_job(opened.output, fold, threads=engine.cores, trusted=opened.trusted)
        console.print(f"{job.name}:", highlight=False)
        console.print(engine.describe(job), highlight=False, markup=False, soft_wrap=True)
    return 0


def train_by_jobs(opened: Opened, *, resumed: bool) -> int:
    """Prepare, start a job for each fold that is not finished, wait and print; the exit status.

    1 where a fold failed for good: the others are trained all the same, and resume=FOLDER tries again.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings, output, console = opened.settings, opened.output, opened.console
    torch.set_num_threads(threads_of(settings))
    folds = [fold.index for fold in folds_to_run(settings, opened.folds())]
    engine = engine_of(settings.launch, len(folds), opened.trusted)  # what it lacks is told before anything is prepared
    try:
        prepared = prepare(opened, first=Before.read(output) if resumed else None)
        experiment = prepared.experiment
        prepared.record()
        Launched(tuple(folds), engine.cores).write(output)
        record(output / JOBS_FOLDER / EXPERIMENT_FILE, opened.tree)
        tell_what_trains(experiment)
        tracker = open_tracker(settings, output)
        if tracker is not None:
            found = found_here(settings) | {"data_hash": opened.checked.data_hash}
            params, _ = split_choice(experiment.resolved())  # the first job chooses the rest
            start_parent(tracker, settings, output, tags_of(found, settings.task), params)
            tracker.close(None)
        jobs = FoldJobs(output, folds, threads=engine.cores, trusted=opened.trusted)
        launch = settings.launch
        queue = Queue(
            jobs, engine, retries=launch.retries, poll=seconds_of(launch.poll), grace=seconds_of(launch.grace)
        )
        if not launch.wait:
            for entry in queue.submit_all():
                assert entry.submitted is not None
                console.print(f"{entry.job.name}: submitted as {entry.submitted.id}", highlight=False)
            console.print(f"How far they are: python -m pipeline report run={output}", highlight=False, soft_wrap=True)
            return 0
        with opened.interrupt.deferred(), JobTable(output, console) as table:
            entries = queue.run(table.show, lambda: opened.interrupt.requested)
    finally:
        engine.close()
    if opened.interrupt.requested:
        end_parent(opened, "KILLED")
        tell_how_to_go_on(output, console)
        raise Stopped(opened.interrupt.signal)
    if failed := [entry for entry in entries if entry.state == "failed"]:
        end_parent(opened, "FAILED")
        tell_failures(failed, console)
        return MISTAKE if all(entry.status == MISTAKE for entry in failed) else 1
    tell_results(sum_up(experiment, folds), output, console)
    return 0


def tell_failures(failed: Sequence[Entry], console: Console) -> None:
    """The last lines of each failed job's log."""
    for entry in failed:
        said = "was lost" if entry.status is None else f"failed with exit status {entry.status}"
        tries = f" in {entry.tries} tries" if entry.tries > 1 else ""
        console.print(f"{entry.job.name} {said}{tries}; the end of {entry.job.log}:", highlight=False, soft_wrap=True)
        try:
            lines = entry.job.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            lines = [f"not readable: {error.strerror}"]
        for line in lines[-TAIL:]:
            console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)
