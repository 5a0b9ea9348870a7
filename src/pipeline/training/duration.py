"""Times as people write them."""

from __future__ import annotations

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """Seconds of ``90s``, ``15m``, ``1.5h`` or ``2d`` (the form is checked by the schema)."""
    text = text.strip()
    return float(text[:-1]) * UNITS[text[-1]]


def in_words(seconds: float) -> str:
    """Seconds as 45 s, 3:20 min or 2:05 h."""
    if seconds != seconds:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02d} h"
