"""How a data-loading process begins."""

from __future__ import annotations

import sys
import threading
from types import TracebackType


def begin(number: int) -> None:
    """Have the worker ``number`` say nothing of a training that went away; for ``worker_init_fn``.

    A thread of it hands batches over (multiprocessing.resource_sharer). Where training stops in the middle of that,
    because another worker was lost or by a signal, it would print a traceback beside what the user is told.
    """
    told = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        beside = threading.current_thread() is not threading.main_thread()
        if not (beside and isinstance(error, ConnectionError | EOFError)):
            told(kind, error, trace)

    sys.excepthook = hook
