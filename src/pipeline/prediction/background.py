"""Work that is done behind the computing, in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

WAITING = 2  # finished masks that wait to be written, beside the one that is

Result = TypeVar("Result")


class InOrder(Generic[Result]):
    """Makes calls one after the other in a thread, in the order in which they were given; keeps their ``results``.

    ``submit`` waits while too many calls wait. The first error of a call is raised by the next ``submit``, or at the
    end of the ``with`` block; calls after it are not made. Where the block itself fails, calls given before are made.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self.results: list[Result] = []
        self._waiting = waiting
        self._calls: deque[Future[Result]] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._failed = False

    def submit(self, call: Callable[[], Result]) -> None:
        """Have ``call`` made; raises what an earlier call raised."""
        while self._calls and (self._calls[0].done() or len(self._calls) > self._waiting):
            self.results.append(self._calls.popleft().result())
        self._calls.append(self._thread.submit(self._make, call))

    def _make(self, call: Callable[[], Result]) -> Result:
        if self._failed:
            raise RuntimeError("a call before this one failed")
        try:
            return call()
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            while self._calls:
                self.results.append(self._calls.popleft().result())
