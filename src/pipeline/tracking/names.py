"""Names and values in the form that MLflow accepts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.tracking.secrets import HIDDEN, is_secret_name, mask

NAME_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 5000

_RUN_KEY = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_REFUSED = re.compile(r"[^\w.\- :/]")


def metric_name(name: str) -> str:
    """``name`` with what MLflow refuses replaced: ``dice[left lung]`` becomes ``dice/left lung``, others ``_``."""
    name = _REFUSED.sub("_", _BRACKETS.sub(r"/\1", name))
    name = "/".join(part for part in name.split("/") if part not in ("", ".", "..")) or "_"
    if len(name) > NAME_LENGTH:
        name = f"{name[: NAME_LENGTH - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def flat_params(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Parameters as text, nested mappings with dotted names, secrets hidden."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flat_params(value, f"{name}."))
        elif is_secret_name(name) and value is not None:
            flat[metric_name(name)] = HIDDEN
        else:
            flat[metric_name(name)] = mask(_text(value))
    return flat


def flat_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as text, secrets hidden; names cut to the length that MLflow takes."""
    return {
        str(name)[:NAME_LENGTH]: HIDDEN if is_secret_name(str(name)) else mask(str(value))
        for name, value in tags.items()
    }


def shortened(value: str, length: int) -> str:
    """``value`` cut to ``length`` characters, with an ellipsis where it was cut."""
    return value if len(value) <= length else value[: length - 1] + "…"


def check_run_key(key: str) -> str:
    """``key`` itself; it doubles as a folder inside the run folder, hence no ``..``. Raises ``ValueError``."""
    if not _RUN_KEY.fullmatch(key) or any(set(part) == {"."} for part in key.split("/")):
        raise ValueError(f"{key!r} is not a run key such as 'parent' or 'fold_0'")
    return key


def _text(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, list | tuple | dict) else str(value)
