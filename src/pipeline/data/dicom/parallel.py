"""Work spread over processes: DICOM is parsed in Python, which threads would not speed up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

from pipeline.errors import UserError

Result = TypeVar("Result")
AHEAD = 2  # calls submitted per worker
WORTH_IT = 3  # calls below which the start of processes costs more than it saves


def in_parallel(
    function: Callable[..., Result], calls: Sequence[tuple[Any, ...]], workers: int = 1
) -> Iterator[Result]:
    """The result of ``function(*arguments)`` for each of ``calls``, in the order in which they end.

    Raises UserError where a process dies.
    """
    workers = min(workers, len(calls))
    if workers <= 1 or len(calls) < WORTH_IT:
        for arguments in calls:
            yield function(*arguments)
        return
    # Spawned, not forked: the caller may run threads, and a fork would copy their locks. Ctrl-C is for the caller.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=ignore)
    try:
        left = iter(calls)
        waiting = {pool.submit(function, *arguments) for arguments in islice(left, AHEAD * workers)}
        while waiting:
            done, waiting = wait_for(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            waiting |= {pool.submit(function, *arguments) for arguments in islice(left, len(done))}
    except BrokenProcessPool as error:
        raise UserError("a process that reads DICOM died", "is the memory full? use fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)
