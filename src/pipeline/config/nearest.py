"""The valid name that a misspelled one was most likely meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str], count: int = 1) -> list[str]:
    """Up to ``count`` valid names that resemble ``name``, best first (Ratcliff-Obershelp ratio of at least 0.6).

    Case counts only between names that are otherwise equally near.
    """
    by_lower: dict[str, list[str]] = {}
    for option in valid:
        by_lower.setdefault(option.lower(), []).append(option)
    found = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    alike = [sorted(by_lower[option], key=lambda option: -_ratio(name, option)) for option in found]
    return [option for options in alike for option in options][:count]


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def did_you_mean(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """One remedy line: the nearest names, or all valid ones where none is near."""
    options = sorted(set(valid))
    near = nearest(name, options, 2)
    near = [option for option in near if _ratio(name, option) >= 0.9 * _ratio(name, near[0])]
    if near:
        return "did you mean " + " or ".join(prefix + option for option in near) + "?"
    if not options:
        return "no name is valid here"
    listed = ", ".join(options[:20]) + (", ..." if len(options) > 20 else "")
    return f"valid here: {listed}"
