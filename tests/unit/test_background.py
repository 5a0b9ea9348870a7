"""Calls in a thread: their order, their errors, and how many wait."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.prediction.background import InOrder


def test_results_come_in_order() -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    with InOrder[int]() as background:
        for number in range(12):
            background.submit(lambda number=number: slow(number))
    assert background.results == list(range(12))


def test_few_calls_wait() -> None:
    gate, begun = threading.Event(), []

    def call() -> None:
        begun.append(1)
        gate.wait(10)

    with InOrder[None](waiting=1) as background:
        background.submit(call)
        background.submit(call)
        third = threading.Thread(target=background.submit, args=(call,))
        third.start()
        third.join(0.05)
        assert third.is_alive() and len(begun) == 1
        gate.set()
        third.join(10)
    assert len(begun) == 3


def test_the_first_error_is_raised_and_nothing_is_done_after_it() -> None:
    done = []

    def fail() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), InOrder[None]() as background:
        background.submit(lambda: done.append(1))
        background.submit(fail)
        background.submit(lambda: done.append(2))
    assert done == [1]
    with pytest.raises(OSError, match="no space left"), InOrder[None](waiting=1) as background:  # told while others run
        for _ in range(5):
            background.submit(fail)
            time.sleep(0.01)
        raise AssertionError("not told")


def test_what_was_given_is_done_though_the_block_fails() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), InOrder[None]() as background:
        background.submit(lambda: done.append(1))
        background.submit(lambda: done.append(2))
        raise KeyboardInterrupt
    assert done == [1, 2]
