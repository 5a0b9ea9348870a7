"""Work on many things in threads, in order, with few of them under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 4  # things submitted per worker: enough to keep it busy, few enough to stop soon

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def in_order(work: Callable[[Thing], Result], things: Iterable[Thing], workers: int) -> Iterator[tuple[Thing, Result]]:
    """Each thing with what ``work`` made of it, in order. The first error is raised where its thing stands."""
    workers = max(1, workers)
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[Thing, Future[Result]]] = deque()
    try:
        for thing in things:
            waiting.append((thing, pool.submit(work, thing)))
            if len(waiting) >= AHEAD * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
