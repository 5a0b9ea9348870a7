"""What a configuration may say to Hydra itself, below ``hydra:``, which is acted on before anything else is judged.

Hydra builds its callbacks, sweeper and launcher from ``_target_`` nodes, and Python's logging is set up from a mapping
that may name any function. A configuration shared by a stranger must not run code that way either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.interpolation import Keys, dotted, leaves
from pipeline.errors import UserError

TARGETS = ("hydra._internal.core_plugins.", "hydra_plugins.")  # Hydra's own and those of installed plugins
LOGGING = ("job_logging", "hydra_logging")
HANDLERS = {"logging.StreamHandler", "logging.FileHandler", "logging.NullHandler"}
FACTORIES = {"colorlog.ColoredFormatter"}
STREAMS = {"ext://sys.stdout", "ext://sys.stderr"}


def hydra_mistakes(settings: dict[str, Any]) -> list[UserError]:
    """What is not allowed in the composed ``hydra:`` section, one mistake for each value."""
    return [
        UserError(
            f"{dotted(('hydra', *keys))}: {value!r} is not allowed: it could run code",
            "remove it; a configuration that names it may have been written to do harm",
        )
        for keys, value in _refused(settings)
    ]


def _refused(settings: dict[str, Any]) -> Iterator[tuple[Keys, Any]]:
    for keys, value in leaves(settings):
        last = str(keys[-1]) if keys else ""
        if "_target_" in keys:
            if last != "_target_" or not (isinstance(value, str) and value.startswith(TARGETS)):
                yield keys, value
        elif keys and keys[0] in LOGGING:
            text = value if isinstance(value, str) else ""
            if (
                (last == "()" and value not in FACTORIES)
                or (last == "class" and value not in HANDLERS)
                or (text.startswith(("ext://", "cfg://")) and text not in STREAMS)
            ):
                yield keys, value
