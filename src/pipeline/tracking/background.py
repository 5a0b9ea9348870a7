"""The one thread that talks to MLflow while training goes on."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from pipeline.tracking.journal import Journal
from pipeline.tracking.lock import Lock
from pipeline.tracking.mlflow_store import MlflowStore, reason
from pipeline.tracking.secrets import mask
from pipeline.tracking.sender import ParentNotSent, Sender
from pipeline.tracking.sent import Sent

log = logging.getLogger(__name__)

GATHER_S = 1.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
PAUSE_AT_END_S = 1.0


class Background(threading.Thread):
    """Sends the journal as it grows; an unreachable store is tried again after growing pauses.

    It owns ``lock`` and ``journal`` from ``start`` on and gives both back when it ends.
    """

    def __init__(self, output: Path, uri: str, journal: Journal, sent: Sent, lock: Lock) -> None:
        super().__init__(name="tracking", daemon=True)
        self._output = output
        self._uri = uri
        self._journal = journal
        self._sent = sent
        self._lock = lock
        self._changed = threading.Condition()
        self._new = True
        self._urgent = False
        self._deadline: float | None = None
        self._failures = 0
        self._sender: Sender | None = None

    @property
    def connected(self) -> bool:
        """True when the store has answered before."""
        return self._sender is not None

    def wake(self) -> None:
        """Something was appended to the journal."""
        with self._changed:
            self._new = True
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that is in the journal now is sent; False at once while the store cannot be reached."""
        target = self._journal.size
        with self._changed:
            self._new = self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._sent.offset >= target or self._failures > 0, timeout_s)
            return self._sent.offset >= target

    def stop(self, timeout_s: float) -> bool:
        """Try to send the rest for at most ``timeout_s``; True when everything is sent and the thread has ended."""
        with self._changed:
            self._new = True
            self._deadline = time.monotonic() + timeout_s
            self._changed.notify_all()
        self.join(timeout_s)
        return not self.is_alive() and self._sent.offset >= self._journal.size

    def run(self) -> None:
        """The thread's work, until ``stop``."""
        try:
            while self._wait_for_work():
                with self._changed:
                    last = self._deadline is not None
                    self._new = self._urgent = False
                try:
                    if self._sender is None:
                        store = MlflowStore(self._uri)
                        self._sender = Sender(self._output, self._journal, self._sent, store)
                    self._sender.send(self._go_on)
                except ParentNotSent as error:
                    self._failed(error, quietly=True)
                except Exception as error:
                    self._failed(error)
                else:
                    self._succeeded()
                    if last:
                        return
        finally:
            self._journal.close()
            self._lock.release()

    def _wait_for_work(self) -> bool:
        """True when there is something to do; False when time is up."""
        with self._changed:
            if self._failures:
                pause = min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
                self._changed.wait_for(lambda: self._deadline is not None, pause)
                if self._deadline is not None and self._failures > 1:
                    time_left = self._deadline - time.monotonic()
                    self._changed.wait(max(0.0, min(PAUSE_AT_END_S, time_left)))
            else:
                self._changed.wait_for(lambda: self._new)
                if not (self._urgent or self._deadline is not None):
                    self._changed.wait_for(lambda: self._urgent or self._deadline is not None, GATHER_S)
        return self._go_on()

    def _go_on(self) -> bool:
        return self._deadline is None or time.monotonic() < self._deadline

    def _failed(self, error: Exception, *, quietly: bool = False) -> None:
        if self._failures == 0 and not quietly:
            log.warning(
                "MLflow at %s cannot be used now (%s).\n"
                "    Training goes on; everything is kept in %s and sent when it is back.",
                mask(self._uri),
                reason(error),
                self._journal.path,
            )
        with self._changed:
            self._failures += 1
            self._changed.notify_all()

    def _succeeded(self) -> None:
        if self._failures:
            log.info("MLflow at %s is back; everything is sent.", mask(self._uri))
        with self._changed:
            self._failures = 0
            self._changed.notify_all()
