"""What squeue says of the jobs: one call for all of them. It needs no accounting, as sacct does."""

from __future__ import annotations

import subprocess
import time

ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)
WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"))
BY_ITSELF = frozenset(("COMPLETED", "FAILED"))  # ended with its command, not by Slurm


class SlurmQueue:
    """The states of my jobs, asked for at most every ``poll`` seconds."""

    def __init__(self, poll: float) -> None:
        self._poll = poll
        self._asked = float("-inf")
        self._states: dict[str, str] = {}
        self._answered = float("-inf")

    def state(self, job: str, submitted: float) -> str | None:
        """Slurm's word for the state of a job; None once Slurm has forgotten it, minutes after its end.

        ``submitted``: when it was, by the monotonic clock. While the controller does not answer, jobs stay what they
        were.
        """
        now = time.monotonic()
        if now - self._asked >= self._poll:
            self._asked = now
            states = _states()
            if states is not None:
                self._answered, self._states = now, states
        if self._answered < submitted:
            return "PENDING"
        return self._states.get(job)


def _states() -> dict[str, str] | None:
    command = ["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    return {words[0]: words[1] for line in done.stdout.splitlines() if len(words := line.split()) == 2}
