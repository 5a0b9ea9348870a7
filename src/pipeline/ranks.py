"""Which of several cooperating processes this one is, from what launchers put into the environment."""

from __future__ import annotations

import os

RUN_FOLDER = "PIPELINE_RUN_FOLDER"  # set by rank zero for the processes it starts, so that all share one folder


def rank() -> int:
    """Global rank of this process: 0 alone or first, higher in processes started by Lightning or torchrun."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
