"""A configuration file in which every value is followed by the reason for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml


@dataclass(frozen=True)
class Chosen:
    """A value and why it is so."""

    value: Any
    why: str


@dataclass(frozen=True)
class Remark:
    """A line of comment that belongs to no value."""

    text: str


Node: TypeAlias = "Chosen | Remark | Mapping[str, Node] | Sequence[Node]"


def text_of(header: Sequence[str], tree: Mapping[str, Node]) -> str:
    """The text of a YAML file: comment lines, then the tree, one value a line."""
    return "\n".join([*(f"# {line}" for line in header), *_lines(tree, 0), ""])


def plain(node: Node) -> Any:
    """The tree without its reasons."""
    if isinstance(node, Chosen):
        return node.value
    if isinstance(node, Mapping):
        return {key: plain(child) for key, child in node.items() if not isinstance(child, Remark)}
    assert not isinstance(node, Remark)
    return [plain(child) for child in node if not isinstance(child, Remark)]


def _lines(node: Mapping[str, Node], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for key, child in node.items():
        if isinstance(child, Remark):
            yield f"{indent}# {child.text}"
        elif isinstance(child, Chosen):
            yield f"{indent}{key}: {_flow(child.value)} # {child.why}"
        else:
            if depth == 0:
                yield ""
            yield f"{indent}{key}:"
            if isinstance(child, Mapping):
                yield from _lines(child, depth + 1)
            else:
                yield from _items(child, depth + 1)


def _items(nodes: Sequence[Node], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for node in nodes:
        if isinstance(node, Remark):
            yield f"{indent}# {node.text}"
        elif isinstance(node, Chosen):
            yield f"{indent}- {_flow(node.value)} # {node.why}"
        else:
            assert isinstance(node, Mapping)
            first, *rest = _lines(node, depth + 1)
            yield f"{indent}- {first.lstrip()}"
            yield from rest


def _flow(value: Any) -> str:
    """A value on one line, as YAML."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
    return dumped.removesuffix("...\n").strip()
