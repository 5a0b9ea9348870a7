"""Reading YAML that may come from strangers: size, depth and aliases are limited before anything is built."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from pipeline.errors import UserError

MOST_BYTES = 1 << 20
MOST_NODES = 100_000  # after aliases are written out
MOST_DEPTH = 60
MOST_DIGITS = 400  # of a number; Python cannot even print one of a few thousand
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-zA-Z_.]*")


@dataclass(frozen=True)
class YamlFile:
    """One file: its content as Hydra would read it, its leading comments and the line of each key."""

    path: Path
    content: dict[str, Any]
    header: tuple[str, ...]
    root: yaml.Node | None

    @property
    def package(self) -> str | None:
        """The package named in the header (``# @package _global_``), None where the folder decides."""
        for line in self.header:
            if line.startswith("@package "):
                return line.removeprefix("@package ").strip()
        return None

    @property
    def summary(self) -> str:
        """The first comment line, without the package header."""
        return next((line for line in self.header if line and not line.startswith("@package")), "")

    def line(self, keys: tuple[str | int, ...]) -> int | None:
        """Line (from 1) on which the value of these keys is given, None if the file does not give it."""
        node, line = self.root, 1
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                found = [(k, v) for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == str(key)]
                if not found:
                    return None
                line, node = found[-1][0].start_mark.line + 1, found[-1][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                return None
        return line


def shown(path: Path) -> str:
    """The path as a user would type it: relative where it lies below the working folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@lru_cache(maxsize=512)
def _read(path: Path, modified: int, size: int) -> YamlFile:
    name = shown(path)
    if size > MOST_BYTES:
        raise UserError(f"{name}: {size} bytes; the limit for a configuration file is {MOST_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        refuse_large(text, name)
        root = yaml.compose(text, Loader=get_yaml_loader())
        content = yaml.load(text, Loader=get_yaml_loader())
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise UserError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise UserError(f"{name}: holds a {type(content).__name__}; a configuration is a mapping of keys to values")
    _refuse_odd(content, name)
    return YamlFile(path, content or {}, tuple(_header(text)), root)


def read_yaml(path: Path) -> YamlFile:
    """Read one configuration file.

    Raises UserError where it is not YAML, not a mapping, or larger than the limits once aliases are written out.
    """
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror}") from None


def _refuse_odd(node: Any, name: str) -> None:
    """Raise UserError for what YAML can write and a configuration has no use for, such as sets and empty keys."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str | int | float):
                raise UserError(f"{name}: the key {key!r} is a {type(key).__name__}", "write a name")
            _refuse_odd(value, name)
    elif isinstance(node, list):
        for value in node:
            _refuse_odd(value, name)
    elif not isinstance(node, str | int | float | None):
        raise UserError(f"{name}: holds a {type(node).__name__}", "write text, numbers, lists and mappings")


def _header(text: str) -> list[str]:
    lines = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#"):
            lines.append(line.lstrip("#").strip())
    return lines


def refuse_large(text: str, name: str) -> None:
    """Raise UserError if the document has too many nodes with its aliases written out, or is nested too deeply."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserError(f"{name}:{line}: alias *{event.anchor} refers to itself or to nothing")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if len(event.value) > MOST_DIGITS and event.style is None and _NUMBER.fullmatch(event.value):
                raise UserError(f"{name}:{line}: too large: a number of {len(event.value):,} digits")
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            open_nodes.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before + 1
        if total > MOST_NODES:
            raise UserError(f"{name}:{line}: too large: more than {MOST_NODES} values once its aliases are written out")
        if len(open_nodes) > MOST_DEPTH:
            raise UserError(f"{name}:{line}: too large: nested more than {MOST_DEPTH} deep")
