"""The one thread that talks to MLflow while training goes on."""

from __future__ import annotations

import logging
import platform
import random
import threading
import time
from pathlib import Path

from pipeline.tracking.journal import Journal
from pipeline.tracking.lock import Lock
from pipeline.tracking.mlflow_store import CREDENTIALS, MlflowStore, is_unknown_user, reason
from pipeline.tracking.secrets import mask
from pipeline.tracking.sender import ParentNotSent, Sender
from pipeline.tracking.sent import Sent

log = logging.getLogger(__name__)

GATHER_S = 1.0
LONGEST_GATHER_S = 60.0
SHARE_OF_TIME = 0.1  # at most, of a slow store's time that one run asks for
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
PAUSE_AT_END_S = 1.0
PARENT_PAUSE_S = 0.5  # between looks for the run of another journal of which this one's is a part


def pause_s(failures: int, draw: float) -> float:
    """Seconds before the next try after so many failures; ``draw`` from 0 to 1 spreads the runs over half of it."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE_S) * (0.5 + 0.5 * draw)


def gather_s(sending_s: float) -> float:
    """Seconds for which new events are gathered, after the last ones took ``sending_s`` to send."""
    return min(max(GATHER_S, sending_s * (1 / SHARE_OF_TIME - 1)), LONGEST_GATHER_S)


class Background(threading.Thread):
    """Sends the journal as it grows; an unreachable store is tried again after growing pauses.

    The pauses of two runs differ, so that hundreds of them do not come back in step, and a slow store is given larger
    batches more rarely.

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
        self._behind = False  # what this journal's runs belong to is not in the store yet
        self._gather_s = GATHER_S
        self._draws = random.Random(f"{platform.node()} {output}")
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
                    began = time.monotonic()
                    if self._sender is None:
                        store = MlflowStore(self._uri)
                        self._sender = Sender(self._output, self._journal, self._sent, store)
                        began = time.monotonic()  # imports and a new sqlite file say nothing of the store's pace
                    self._sender.send(self._go_on)
                except ParentNotSent:
                    self._succeeded()
                    self._behind = True
                except Exception as error:
                    self._failed(error)
                else:
                    self._behind = False
                    self._gather_s = gather_s(time.monotonic() - began)
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
                pause = pause_s(self._failures, self._draws.random())
                self._changed.wait_for(lambda: self._deadline is not None, pause)
                if self._deadline is not None and self._failures > 1:
                    time_left = self._deadline - time.monotonic()
                    self._changed.wait(max(0.0, min(PAUSE_AT_END_S, time_left)))
            elif self._behind:
                self._changed.wait(PARENT_PAUSE_S)
            else:
                self._changed.wait_for(lambda: self._new)
                if not (self._urgent or self._deadline is not None):
                    self._changed.wait_for(lambda: self._urgent or self._deadline is not None, self._gather_s)
        return self._go_on()

    def _go_on(self) -> bool:
        return self._deadline is None or time.monotonic() < self._deadline

    def _failed(self, error: Exception) -> None:
        if self._failures == 0:
            log.warning(
                "MLflow at %s cannot be used now (%s).\n"
                "    Training goes on; everything is kept in %s and sent when it is back.%s",
                mask(self._uri),
                reason(error),
                self._journal.path,
                f"\n    {CREDENTIALS}" if is_unknown_user(error) else "",
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
