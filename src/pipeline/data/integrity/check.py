"""The check of a data set: every file read to its end, in parallel, then every rule."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipeline.data.case import Case, Dataset
from pipeline.data.integrity.memory import Memory
from pipeline.data.integrity.reading import Job, Reading, read_case
from pipeline.data.integrity.result import CaseRecord, CheckResult, CheckSettings, Fault
from pipeline.data.integrity.rules import RULES
from pipeline.data.integrity.rules.duplicates import alike, duplicates
from pipeline.data.integrity.view import View, foreground_voxels, voxel_size

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
    settings = settings or CheckSettings()
    readings: dict[Job, list[Reading]] = {}
    with Memory(cache, dataset.root) as memory:
        remembered = _read_all(_by_case(dataset), readings, memory, workers, progress)
        read = len(readings) - remembered
        doubles = [(Job(path, "voxels"),) for path in alike(dataset, readings)]
        _read_all(doubles, readings, memory, workers, progress)
    view = View(dataset, settings, readings)
    faults: list[Fault] = [fault for rule in RULES for fault in rule(view)]
    faults.sort(key=lambda fault: fault.severity)  # errors first; the order of rules and cases stays
    return CheckResult(
        faults=tuple(faults),
        records={case.case_id: record for case in dataset.cases if (record := _record(view, case)) is not None},
        duplicates=tuple(tuple(dict.fromkeys(case.case_id for case, _ in group)) for group in duplicates(view)),
        read=read,
        remembered=remembered,
        seconds=time.perf_counter() - begun,
    )


def _by_case(dataset: Dataset) -> list[tuple[Job, ...]]:
    """The files of each case that no case before has, the reference image first and the mask last."""
    found: list[tuple[Job, ...]] = []
    known: set[Job] = set()
    for case in dataset.cases:
        jobs = [Job.of(case.images[name], "image") for name in dataset.modalities if name in case.images]
        jobs += [Job.of(source, "image") for name, source in case.images.items() if name not in dataset.modalities]
        if case.label is not None:
            jobs.append(Job.of(case.label, "mask"))
        fresh = tuple(job for job in dict.fromkeys(jobs) if job not in known)
        if fresh:
            known.update(fresh)
            found.append(fresh)
    return found


def _read_all(
    groups: Sequence[tuple[Job, ...]],
    readings: dict[Job, list[Reading]],
    memory: Memory,
    workers: int,
    progress: bool,
) -> int:
    """Put the readings of all jobs into ``readings``; returns how many of them were remembered."""
    unread = []
    remembered = 0
    for jobs in groups:
        known = {job: found for job in jobs if (found := memory.recall(job)) is not None}
        if len(known) == len(jobs) and _fits(known):
            readings.update(known)
            remembered += len(known)
        else:
            unread.append(jobs)
    with _bar(remembered + sum(map(len, unread)), remembered, progress) as advance:
        for jobs, fresh in _in_parallel(unread, workers):
            for job, one in zip(jobs, fresh, strict=True):
                readings[job] = one
                memory.keep(job, one)
            advance(len(jobs))
    return remembered


def _fits(known: Mapping[Job, list[Reading]]) -> bool:
    """Whether the mask was compared with the image as it is now."""
    fits = [found[0] for job, found in known.items() if job.role == "mask" and found[0].fit_to]
    return not fits or fits[0].fit_to == next(iter(known.values()))[0].sha256


def _in_parallel(
    groups: Iterable[tuple[Job, ...]], workers: int
) -> Iterator[tuple[tuple[Job, ...], list[list[Reading]]]]:
    """Jobs of a case with their readings, in order; never more than a few cases are under way."""
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="check")
    waiting: deque[tuple[tuple[Job, ...], Future[list[list[Reading]]]]] = deque()
    try:
        for jobs in groups:
            waiting.append((jobs, pool.submit(read_case, jobs)))
            if len(waiting) >= AHEAD * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _bar(total: int, done: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields the function that moves it on."""
    if not shown or done == total:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("check"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("check", total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def _record(view: View, case: Case) -> CaseRecord | None:
    found = list(view.sources(case))
    if any(reading.fault is not None for _, _, reading in found):
        return None
    images = [reading for _, role, reading in found if role == "image"]
    mask = next((reading for _, role, reading in found if role == "mask"), None)
    return CaseRecord(
        case_id=case.case_id,
        shape=images[0].shape,
        spacing=voxel_size(images[0]),
        intensity=(min(reading.minimum for reading in images), max(reading.maximum for reading in images)),
        sha256={view.shown(source): reading.content or reading.sha256 for source, _, reading in found},
        class_voxels=foreground_voxels(view, mask) if mask is not None else {},
    )
