"""Which data-loading worker is missed: one that was killed, not one whose epoch is over."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from torch.utils.data import DataLoader, Dataset

from pipeline.data.loading import InHand
from pipeline.errors import UserError
from pipeline.training.breakdown import NoteBatch, explained

CASES = ("ann", "bob", "cleo", "dan")


class Noted(Dataset[int]):
    """Notes its cases as training does; the case ``slow`` takes until its worker is ended."""

    def __init__(self, slow: int | None = None) -> None:
        self.in_hand = InHand(workers=2, most=1)
        self.slow = slow

    def __len__(self) -> int:
        return len(CASES)

    def __getitem__(self, index: int) -> int:
        self.in_hand.note([index])
        while index == self.slow:
            time.sleep(0.1)
        return os.getpid()

    def loader(self) -> DataLoader[int]:
        return DataLoader(self, batch_size=None, num_workers=2, multiprocessing_context="spawn")


def test_a_full_disk_after_an_epoch_is_not_told_as_a_lost_worker() -> None:
    noted = Noted()
    assert len(set(map(int, noted.loader()))) == 2
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError) as raised, explained("fold 0", NoteBatch(CASES), noted.in_hand):
        raise full
    assert raised.value is full


@pytest.fixture
def quiet_end() -> Iterator[Callable[[], None]]:
    """Call it, then delete the loader: PyTorch's handler would raise once more, wherever, as the other worker ends."""
    found = signal.getsignal(signal.SIGCHLD)

    def quiet() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    yield quiet
    signal.signal(signal.SIGCHLD, found)


def test_a_worker_that_was_killed_is_told_with_its_case(quiet_end: Callable[[], None]) -> None:
    noted = Noted(slow=1)
    batches = iter(noted.loader())
    assert next(batches) > 0
    deadline = time.monotonic() + 60
    while not (pids := [pid for pid in noted.in_hand.workers() if noted.in_hand.of([pid], CASES) == ["bob"]]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not noted.in_hand.gone()
    told = pytest.raises(UserError, match="worker ended unexpectedly at bob")
    with told, explained("fold 0", NoteBatch(CASES), noted.in_hand):
        os.kill(pids[0], signal.SIGKILL)  # PyTorch may raise here too, once it hears of it
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    quiet_end()
    del batches
