"""The valid name that a misspelled one was most likely meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str], count: int = 1) -> list[str]:
    """Up to ``count`` valid names that resemble ``name``, best first (Ratcliff-Obershelp ratio of at least 0.6)."""
    by_lower = {option.lower(): option for option in valid}
    found = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    return [by_lower[option] for option in found]


def did_you_mean(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """One remedy line: the nearest names, or all valid ones where none is near."""
    options = sorted(set(valid))
    near = nearest(name, options, 2)
    if near:
        return "did you mean " + " or ".join(prefix + option for option in near) + "?"
    if not options:
        return "no name is valid here"
    listed = ", ".join(options[:20]) + (", ..." if len(options) > 20 else "")
    return f"valid here: {listed}"
