"""How often a tracker asks the server: apart from the others, and less where it is slow."""

from __future__ import annotations

from pipeline.tracking.background import GATHER_S, LONGEST_GATHER_S, LONGEST_PAUSE_S, gather_s, pause_s


def test_pauses_grow_and_differ() -> None:
    assert [pause_s(failures, 1.0) for failures in (1, 2, 3, 500)] == [1.0, 2.0, 4.0, LONGEST_PAUSE_S]
    assert [pause_s(failures, 0.0) for failures in (1, 2, 3, 500)] == [0.5, 1.0, 2.0, LONGEST_PAUSE_S / 2]
    assert pause_s(9, 0.25) != pause_s(9, 0.5)


def test_a_slow_server_is_asked_more_rarely() -> None:
    assert gather_s(0.02) == GATHER_S
    assert gather_s(1.0) == 9.0  # a tenth of the time is spent sending
    assert gather_s(100.0) == LONGEST_GATHER_S
