"""The arguments ``key=value`` of the command line, read with Hydra's own grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.nearest import did_you_mean
from pipeline.errors import UserError

# Mappings whose keys are the user's own: one on the command line takes the place of that of a file.
NAMED_BY_USER = (
    "labels",
    "regions",
    "images",
    "target_names",
    "keep",
    "rois",
    "modalities",
    "class_weights",
    "case_weights",
    "space",
)


# What a short key stands for where its value is text.
SHORT = {"resume": "resume.run"}


@dataclass(frozen=True)
class Choice:
    """``group=option``, ``+group=option`` or ``~group`` (option None: the group is left out)."""

    group: str
    option: Any
    text: str


@dataclass(frozen=True)
class Value:
    """``key=value`` or ``~key``: ``keys`` are the parts of the key, ``text`` what was typed after the equals sign."""

    keys: tuple[str, ...]
    value: Any
    text_line: str
    delete: bool = False

    @property
    def text(self) -> str:
        """The value as typed."""
        return self.text_line.partition("=")[2]

    def apply(self, tree: Any) -> UserError | None:
        """Set (or delete) the value in an OmegaConf tree; returns the mistake where that is impossible."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        *above, last = self.keys
        node: Any = tree
        for depth, key in enumerate(self.keys):
            here = ".".join(self.keys[:depth])
            if OmegaConf.is_list(node):
                if not key.isdigit() or int(key) >= len(node):
                    return self._fault(
                        f"{here} is a list of {len(node)}, and {key!r} is not a place in it", "count from 0"
                    )
                node = node._get_node(int(key))
            elif OmegaConf.is_dict(node):
                node = node._get_node(key)
            elif node is None or node._value() is None:
                break
            else:
                return self._fault(f"{here} is a value and has no keys below it")
        if self.delete:
            parent = OmegaConf.select(tree, ".".join(above)) if above else tree
            if not OmegaConf.is_dict(parent) or last not in parent:
                names = map(str, parent) if OmegaConf.is_dict(parent) else ()
                return self._fault(
                    "there is nothing to delete", did_you_mean(last, names, "~" + "".join(f"{k}." for k in above))
                )
            del parent[last]
            return None
        try:
            OmegaConf.update(
                tree, ".".join(self.keys), self.value, merge=not replaces(last, self.value), force_add=True
            )
        except (OmegaConfBaseException, IndexError, TypeError, ValueError) as error:
            return self._fault(str(error).splitlines()[0])
        return None

    def _fault(self, fault: str, *remedies: str) -> UserError:
        return UserError(f"{self.text_line} (command line): {fault}", *remedies)


def replaces(key: str, value: Any) -> bool:
    """Whether a value takes the place of the whole mapping under ``key``, instead of being merged into it."""
    return isinstance(value, dict) and (key in NAMED_BY_USER or "_target_" in value)


def for_hydra(override: str) -> list[str]:
    """The override in words of Hydra's own, which merges mappings: one that replaces is null first, then the addition.

    A section is deleted instead; below one Hydra refuses to delete what is null already.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError):  # told of elsewhere
        return [override]
    plain = not (parsed.is_add() or parsed.is_force_add() or parsed.is_delete() or parsed.is_sweep_override())
    name = parsed.key_or_group
    if plain and parsed.package is None and replaces(name.rpartition(".")[2], parsed.value()):
        return [f"{name}=null" if "." in name else f"~{name}", f"+{override}"]
    return [override]


def quoted(override: str) -> str:
    """The override, its value quoted where it is a path or text that Hydra's grammar refuses (``/data (1)/größe``)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError):
        match = re.fullmatch(r"([+~]{0,2}[A-Za-z_][\w./@-]*)=([^\[{'\"]*)", override, re.DOTALL)
        if match and ("/" in match[2] or not match[2].isascii()) and "${" not in match[2]:
            return f'{match[1]}="{match[2]}"'
    return override


def parse(overrides: Sequence[str], *, sweep: bool = False) -> tuple[list[Choice | Value], list[UserError]]:
    """Read every override; those that Hydra's grammar refuses, and several values outside a sweep, become mistakes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed: list[Choice | Value] = []
    mistakes: list[UserError] = []
    for text in overrides:
        try:
            override = parser.parse_override(quoted(text))
        except (HydraException, RecursionError) as error:
            mistakes.append(_syntax(text, error))
            continue
        if override.is_sweep_override():
            if not sweep:
                key, _, typed = text.partition("=")
                mistakes.append(
                    UserError(
                        f"{text} (command line): several values for one run",
                        f"a list: {key}=[{typed}]",
                        f"text with a comma: {key}='\"{typed}\"'",
                        "one run for each: add --multirun",
                    )
                )
            continue
        name = override.key_or_group
        value = override.value()
        if "/" in name or override.package is not None:
            group = f"{name}@{override.package}" if override.package is not None else name
            parsed.append(Choice(group, None if override.is_delete() else value, text))
        else:
            if not isinstance(value, dict) and not override.is_delete():
                name = SHORT.get(name, name)
            parsed.append(Value(tuple(name.split(".")), value, text, override.is_delete()))
    return parsed, mistakes


def _syntax(text: str, error: Exception) -> UserError:
    key, equals, value = text.partition("=")
    if not equals:
        return UserError(
            f"{text} (command line): not of the form key=value", f"{text}=VALUE, or ~{text} to delete the key"
        )
    if not re.fullmatch(r"[+~]{0,2}[\w./@$-]+", key):
        index = re.sub(r"\[(\d+)\]", r".\1", key)
        remedy = f"did you mean {index}={value}?" if index != key else "a key is written section.name"
        return UserError(f"{text} (command line): {key!r} is not a key", remedy)
    reason = str(error).splitlines()[0] if not isinstance(error, RecursionError) else "nested too deeply"
    return UserError(f"{text} (command line): {reason}", f"""quote text with special characters: {key}='"{value}"'""")
