"""Asked to stop: Ctrl-C, SIGTERM, and SIGUSR1 by which Slurm announces the end of a job."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """The process was asked to stop by ``signal``; no Exception, so that nothing takes it for a failure."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal = signal_number

    @property
    def status(self) -> int:
        """Exit status, as shells use it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal


def until_stopped(work: Callable[[Interrupt], int]) -> int:
    """The exit status of ``work``, or of the signal that stopped it."""
    interrupt = Interrupt()
    try:
        with interrupt.listening():
            status = work(interrupt)
    except Stopped as stopped:
        status = stopped.status
    from pipeline.collective import leave

    leave()
    return status


class Interrupt:
    """What the signals do: raise ``Stopped`` at once or, while :meth:`deferred`, wait to be asked for.

    A second signal leaves the process without further ado.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._deferred = False

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal != 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside; the handlers before are put back."""
        before = self.handle()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle(self) -> dict[signal.Signals, Any]:
        """Put our handlers in place, also over those that Lightning puts over them; those before."""
        return {number: signal.signal(number, self._handle) for number in SIGNALS}

    def check(self) -> None:
        """Raise ``Stopped`` if a signal came while it was deferred."""
        if self.requested:
            raise Stopped(self.signal)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals inside only set ``requested``: training stops where it can be gone on from."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.signal = number
        if not self._deferred:
            raise Stopped(number)
        name = signal.Signals(number).name
        print(f"\n{name}: stopping after this step. Once more leaves at once.", file=sys.stderr, flush=True)
