"""Folders outside of the run: the cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(given: str | None) -> Path:
    """``given``, else ``$PIPELINE_CACHE``, else medical-pipeline in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if given is not None:
        return Path(given).expanduser().absolute()
    if named := os.environ.get("PIPELINE_CACHE"):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "medical-pipeline"
