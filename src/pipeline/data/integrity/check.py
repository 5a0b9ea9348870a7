"""The check of a data set: every file read to its end, in parallel, then every rule."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipeline.data.case import Case, Dataset
from pipeline.data.image_io.image import spacing_of
from pipeline.data.integrity.memory import Memory
from pipeline.data.integrity.reading import Job, Reading, read_job
from pipeline.data.integrity.result import CaseRecord, CheckResult, CheckSettings, Fault
from pipeline.data.integrity.rules import RULES
from pipeline.data.integrity.rules.files import duplicates
from pipeline.data.integrity.view import View, affine_of, foreground_voxels

AHEAD = 4  # jobs submitted per worker: enough to keep it busy, few enough to stop soon


def check_dataset(
    dataset: Dataset,
    settings: CheckSettings | None = None,
    *,
    workers: int = 2,
    progress: bool = False,
    cache: Path | None = None,
) -> CheckResult:
    """Read every file of a data set and apply every rule.

    Files are read in ``workers`` threads (decompression and hashing release the interpreter's lock), NIfTI in a
    stream, so that memory stays bounded. ``cache``: folder where readings of unchanged files are remembered;
    ``progress``: show a bar on stderr. Never raises for what is wrong with the data.
    """
    begun = time.perf_counter()
    jobs = list(dict.fromkeys(_jobs(dataset)))
    readings: dict[Job, list[Reading]] = {}
    with Memory(cache, dataset.root) as memory:
        for job in jobs:
            known = memory.recall(job)
            if known is not None:
                readings[job] = known
        memory.known.clear()
        remembered = len(readings)
        with _bar(len(jobs), remembered, progress) as advance:
            for job, found in _in_parallel([job for job in jobs if job not in readings], workers):
                readings[job] = found
                memory.keep(job, found)
                advance()
    view = View(dataset, settings or CheckSettings(), readings)
    faults: list[Fault] = [fault for rule in RULES for fault in rule(view)]
    faults.sort(key=lambda fault: fault.severity)  # errors first; the order of rules and cases stays
    return CheckResult(
        faults=tuple(faults),
        records={case.case_id: record for case in dataset.cases if (record := _record(view, case)) is not None},
        duplicates=tuple(tuple(dict.fromkeys(case.case_id for case, _ in group)) for group in duplicates(view)),
        read=len(jobs) - remembered,
        remembered=remembered,
        seconds=time.perf_counter() - begun,
    )


def _jobs(dataset: Dataset) -> Iterator[Job]:
    for case in dataset.cases:
        for source in case.images.values():
            yield Job.of(source, "image")
        if case.label is not None:
            yield Job.of(case.label, "mask")


def _in_parallel(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, list[Reading]]]:
    """Jobs with their readings, in order; never more than a few are under way."""
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="check")
    waiting: deque[tuple[Job, Future[list[Reading]]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(read_job, job)))
            if len(waiting) >= AHEAD * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _bar(total: int, done: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; yields the function that moves it on."""
    if not shown or done == total:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("check"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("check", total=total, completed=done)
        yield lambda: bar.advance(task)


def _record(view: View, case: Case) -> CaseRecord | None:
    found = list(view.sources(case))
    if any(reading.fault is not None for _, _, reading in found):
        return None
    images = [reading for _, role, reading in found if role == "image"]
    mask = next((reading for _, role, reading in found if role == "mask"), None)
    return CaseRecord(
        case_id=case.case_id,
        shape=images[0].shape,
        spacing=spacing_of(affine_of(images[0]), len(images[0].shape)),
        intensity=(min(reading.minimum for reading in images), max(reading.maximum for reading in images)),
        sha256={view.shown(source): reading.content or reading.sha256 for source, _, reading in found},
        class_voxels=foreground_voxels(view, mask) if mask is not None else {},
    )
