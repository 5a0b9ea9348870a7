"""``${key}`` in configuration values: references to other keys of the same configuration, and nothing else.

A restriction of OmegaConf's interpolations. Resolvers (``${oc.env:SECRET}``, ``${now:...}``) are refused because the
resolved configuration is logged; below ``tracking`` an environment variable may be named, and its value reaches the
tracker alone. The size of what references write out is limited, as that of YAML aliases is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from pipeline.config.nearest import did_you_mean
from pipeline.config.yaml_files import MOST_NODES

Keys = tuple[str | int, ...]
DERIVED = "derived"  # the section that the program fills from the data

_MARK = re.compile(r"\$\{([^${}]*)\}")
_REFERENCE = re.compile(r"(\.*)([A-Za-z_][\w-]*(?:\.[\w-]+|\[\d+\])*)")
_ENVIRONMENT = re.compile(r"oc\.env:([A-Za-z_]\w*)(?:,(.*))?")
_MOST_CHARACTERS = 1 << 20


class InterpolationError(Exception):
    """Why one value cannot be resolved; ``remedies`` as in UserError."""

    def __init__(self, cause: str, *remedies: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedies = remedies


def has_interpolation(value: object) -> bool:
    """Whether the value is text with ``${`` in it."""
    return isinstance(value, str) and "${" in value


def dotted(keys: Keys) -> str:
    """The keys as a user writes them: ``transforms.augmentation.2.prob``."""
    return ".".join(map(str, keys))


def leaves(node: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every value that is neither a mapping nor a list, with its keys; empty mappings and lists too."""
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if not items:
        yield keys, node
        return
    for key, child in items:
        yield from leaves(child, (*keys, key))


class Resolver:
    """Resolves the values of one plain tree.

    With ``derived=False`` a value that refers to the derived section stays as it is written; with ``environment=True``
    variables named below ``tracking`` are read, otherwise they stay as they are written.
    """

    def __init__(self, tree: dict[str, Any], *, derived: bool, environment: bool) -> None:
        self.tree = tree
        self.derived = derived
        self.environment = environment
        self._open: set[Keys] = set()
        self._values = 0
        self._characters = 0

    def resolve(self, on_fault: Callable[[Keys, InterpolationError], None]) -> dict[str, Any]:
        """A copy of the tree with all references replaced; faults go to ``on_fault``, their values stay unresolved."""

        def copy(node: Any, keys: Keys) -> Any:
            if isinstance(node, dict):
                return {key: copy(child, (*keys, key)) for key, child in node.items()}
            if isinstance(node, list):
                return [copy(child, (*keys, index)) for index, child in enumerate(node)]
            if not has_interpolation(node):
                return node
            try:
                return self._text(node, keys)
            except InterpolationError as fault:
                on_fault(keys, fault)
                return node

        resolved: dict[str, Any] = copy(self.tree, ())
        return resolved

    def _text(self, text: str, keys: Keys) -> Any:
        if keys in self._open:
            raise InterpolationError(f"{text!r} refers to itself")
        if "${" in _MARK.sub("", text):
            raise InterpolationError(f"{text!r}: nested or unclosed ${{...}}", "write ${section.key}")
        self._open.add(keys)
        try:
            whole = _MARK.fullmatch(text)
            if whole:
                return self._reference(whole[1], keys, text)
            return self._spend(_MARK.sub(lambda mark: self._written(mark, keys), text))
        finally:
            self._open.discard(keys)

    def _written(self, mark: re.Match[str], keys: Keys) -> str:
        value = self._reference(mark[1], keys, mark[0])
        if isinstance(value, dict | list):
            raise InterpolationError(f"{mark[0]} is a {type(value).__name__} and cannot stand inside text")
        return str(self._spend(value))

    def _reference(self, inner: str, keys: Keys, text: str) -> Any:
        inner = inner.strip()
        if ":" in inner:
            return self._variable(inner, keys, text)
        match = _REFERENCE.fullmatch(inner)
        if match is None:
            raise InterpolationError(f"{text!r} is not a reference to a key", "write ${section.key}")
        dots, name = match.groups()
        base = keys[: -len(dots)] if dots else ()
        path = tuple(int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", name.rstrip("]")))
        full: Keys = (*base, *path)
        if full[0] == DERIVED and not self.derived:
            derived = self.tree.get(DERIVED) or {}
            if len(full) > 1 and full[1] not in derived:
                hint = did_you_mean(str(full[1]), map(str, derived), "derived.")
                raise InterpolationError(f"{text!r}: the data do not determine {full[1]!r}", hint)
            return text
        if full[0] == "tracking" and keys[0] != "tracking" and self._secret:
            raise InterpolationError(
                f"{text!r} is not allowed: tracking names an environment variable, which may hold a secret",
                "its value reaches the tracker alone; write the value here",
            )
        return self._value_at(full, text)

    @cached_property
    def _secret(self) -> bool:
        """Whether an environment variable is named below tracking."""
        below = leaves(self.tree.get("tracking"))
        return any(has_interpolation(value) and "oc.env" in value for _, value in below)

    def _value_at(self, full: Keys, text: str) -> Any:
        node: Any = self.tree
        for depth, part in enumerate(full):
            if isinstance(node, dict) and part not in node and str(part) in node:
                part = str(part)
            inside = part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int)
            if not inside or (isinstance(node, list) and int(part) >= len(node)):
                known = map(str, node) if isinstance(node, dict) else ()
                prefix = "".join(f"{key}." for key in full[:depth])
                raise InterpolationError(f"{text!r}: no such key", did_you_mean(str(part), known, prefix))
            node = node[part]
            if has_interpolation(node):
                node = self._text(node, full[: depth + 1])
                if has_interpolation(node):
                    return text  # waits for the derived section
        return self._copied(node, full)

    def _copied(self, node: Any, keys: Keys) -> Any:
        self._spend(node)
        if isinstance(node, dict):
            return {key: self._copied(child, (*keys, key)) for key, child in node.items()}
        if isinstance(node, list):
            return [self._copied(child, (*keys, index)) for index, child in enumerate(node)]
        return self._text(node, keys) if has_interpolation(node) else node

    def _spend(self, value: Any) -> Any:
        self._values += 1
        self._characters += len(value) if isinstance(value, str) else 0
        if self._values > MOST_NODES or self._characters > _MOST_CHARACTERS:
            raise InterpolationError("too large: its references write out more than the limit of values")
        return value

    def _variable(self, inner: str, keys: Keys, text: str) -> Any:
        match = _ENVIRONMENT.fullmatch(inner)
        if match is None or keys[0] != "tracking":
            raise InterpolationError(
                f"{text!r} is not allowed: only ${{section.key}} may stand here",
                "environment variables, which may hold secrets, can be named below tracking only: ${oc.env:NAME}",
            )
        if not self.environment:
            return text
        value = os.environ.get(match[1], match[2])
        if value is None:
            raise InterpolationError(f"the environment variable {match[1]} is not set", f"export {match[1]}=...")
        return value
