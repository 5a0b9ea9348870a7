"""A data-loading worker whose training goes away while a batch is handed over."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAVES = """
import os, sys
from multiprocessing import connection, process, reduction, resource_sharer
from pipeline.data.worker import begin

if {begins}:
    begin(0)
shared = reduction.DupFd(0)
address, key = shared._id
for _ in range(3):  # connects, and is gone before it asks
    connection.Client(address, authkey=process.current_process().authkey).close()
try:
    os.close(shared.detach())  # those that stay are served
    print("served")
    sys.excepthook(ValueError, ValueError("a fault"), None)
finally:
    resource_sharer.stop(timeout=10)
"""


@pytest.mark.parametrize("begins", [False, True])
def test_a_training_that_went_away_is_no_fault_of_the_worker(begins: bool) -> None:
    command = [sys.executable, "-c", LEAVES.format(begins=begins)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
    assert ("EOFError" in done.stderr) is not begins  # what multiprocessing does by itself
    assert "ValueError: a fault" in done.stderr
