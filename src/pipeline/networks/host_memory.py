"""Memory of the features of a step, on a CPU."""

from __future__ import annotations

import ctypes

# Numbers of glibc's mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = -1


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, for the next step; False where it is not glibc.

    It gives every large tensor back to the system and asks for it again in the next step: a page fault for each 4 KiB
    and pages filled with zeros, up to a fifth of a training step. The process then stays as large as it once was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
