"""Many cases at once: in threads, and in processes where threads stand in each other's way."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import NamedTuple

import torch

from pipeline.data.case import Case
from pipeline.data.store.writing import Outcome, StoreError, Writer, flattened
from pipeline.errors import UserError

# Resampling volumes frees the interpreter's lock: two threads then do as much as two processes, which need 15 s to
# import torch and MONAI first. Many small images keep the lock: processes pay as soon as there is work for longer.
TRIAL_S = 5.0  # of threads, before the cores they keep busy are counted
PROCESSES_PAY_S = 30.0  # of work left
BUSY = 0.75  # of the workers' cores: threads that do better go on


class Done(NamedTuple):
    """What became of one entry, None where it failed; ``mistakes``: cause and remedies of each."""

    key: str
    outcome: Outcome | None = None
    mistakes: tuple[tuple[str, ...], ...] = ()
    storage: bool = False  # the mistake is the store's


Job = tuple[str, Case]


def attempt(writer: Writer, key: str, case: Case, *, wait: bool = False) -> Done:
    """Write one entry; mistakes are returned, as exceptions with several arguments do not travel."""
    try:
        return Done(key, writer(key, case, wait=wait))
    except UserError as error:
        return failed(key, error)
    finally:
        give_back()


def failed(key: str, error: UserError) -> Done:
    """The outcome of an entry that could not be made."""
    mistakes = tuple((one.cause, *one.remedies) for one in flattened(error))
    return Done(key, None, mistakes, isinstance(error, StoreError))


def write_all(writer: Writer, jobs: Sequence[Job], workers: int) -> Generator[Done, None, None]:
    """Write the entries, ``workers`` at once, in any order. Every case is computed on one thread, so that the number
    of cores changes no bit of it. Raises UserError where a worker dies."""
    left = deque(jobs)
    workers = min(max(1, workers), len(left))
    with one_thread():
        if workers <= 1:
            while left:
                yield attempt(writer, *left.popleft())
            return
        yield from in_threads(writer, left, workers)
        if left:
            yield from in_processes(writer, left, workers)


def in_threads(writer: Writer, left: deque[Job], workers: int, *, trial_s: float = TRIAL_S) -> Iterator[Done]:
    """Work off ``left``; stop before the end where processes would be faster."""
    total, begun, burnt = len(left), time.monotonic(), time.process_time()
    can_leave = _travels(writer)

    def should_stop() -> bool:
        elapsed = time.monotonic() - begun
        if not can_leave or elapsed < trial_s:
            return False
        ahead = elapsed / max(1, total - len(left)) * len(left)
        return ahead > PROCESSES_PAY_S and time.process_time() - burnt < BUSY * workers * elapsed

    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    yield from _work_off(pool, lambda key, case: pool.submit(attempt, writer, key, case), left, workers, should_stop)


def in_processes(writer: Writer, left: deque[Job], workers: int) -> Iterator[Done]:
    """Work off ``left`` in processes of their own."""
    context = get_context("forkserver")  # a fork of this process would copy the locks of its threads
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(pickle.dumps(writer),))
    try:
        yield from _work_off(pool, lambda key, case: pool.submit(_attempt_here, key, case), left, workers)
    except BrokenProcessPool as error:
        raise UserError(
            "a process that preprocessed cases was killed; the cases done before are kept",
            "is the memory full? preprocess fewer cases at once: store.workers=1",
        ) from error


def _work_off(
    pool: Executor,
    submit: Callable[[str, Case], Future[Done]],
    left: deque[Job],
    workers: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Done]:
    waiting: set[Future[Done]] = set()
    try:
        while left or waiting:
            while left and len(waiting) < 2 * workers:
                waiting.add(submit(*left.popleft()))
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            if left and should_stop():
                for future in wait(waiting).done:
                    yield future.result()
                return
    finally:
        pool.shutdown(cancel_futures=True)


def _travels(writer: Writer) -> bool:
    """Whether other processes can have it: transforms may hold functions that have no name."""
    try:
        pickle.dumps(writer)
    except Exception:
        return False
    return True


_writer: Writer | None = None  # of a worker process


def _start(pickled: bytes) -> None:
    global _writer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us
    torch.set_num_threads(1)
    _writer = pickle.loads(pickled)


def _attempt_here(key: str, case: Case) -> Done:
    assert _writer is not None
    return attempt(_writer, key, case)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def give_back() -> None:
    """Freed memory back to the system: the C library would keep some volumes' worth of it for every thread."""
    trim = getattr(_libc, "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


_libc = ctypes.CDLL(None)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
