"""Whether a plain value (null, boolean, number, text, list, mapping) can be meant where an annotation stands.

Annotations are those of other people's code and not always exact: only what certainly cannot fit is refused.
"""

from __future__ import annotations

import ast
from typing import Any

_LISTS = ("Sequence", "list", "List", "tuple", "Tuple")
_MAPPINGS = ("Mapping", "dict", "Dict")
_OBJECTS = ("Tensor", "Module", "Parameter", "ndarray", "device", "dtype")  # never written in YAML as plain values


def fits(value: Any, annotation: ast.expr) -> bool:
    """Whether ``value`` may be passed for ``annotation``; true wherever the annotation is not a plain one."""
    if isinstance(value, dict) and "_target_" in value:
        return True
    if isinstance(annotation, ast.Constant):
        return _fits_constant(value, annotation)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return fits(value, annotation.left) or fits(value, annotation.right)
    if isinstance(annotation, ast.Subscript):
        return _fits_subscript(value, annotation)
    return _fits_name(value, ast.unparse(annotation).rpartition(".")[2])


def _fits_constant(value: Any, annotation: ast.Constant) -> bool:
    if annotation.value is None:
        return value is None
    if isinstance(annotation.value, str):
        return fits(value, ast.parse(annotation.value, mode="eval").body)
    return True


def _fits_name(value: Any, name: str) -> bool:
    if name == "bool":
        return isinstance(value, bool)
    if name == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name == "str":
        return isinstance(value, str)
    if name in _LISTS:
        return isinstance(value, list)
    if name in _MAPPINGS:
        return isinstance(value, dict)
    return name not in _OBJECTS


def _fits_subscript(value: Any, annotation: ast.Subscript) -> bool:
    name = ast.unparse(annotation.value).rpartition(".")[2]
    inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if name == "Optional":
        return value is None or fits(value, inner[0])
    if name == "Union":
        return any(fits(value, option) for option in inner)
    if name == "Literal":
        return value in [option.value for option in inner if isinstance(option, ast.Constant)]
    if name in _LISTS:
        options = [option for option in inner if not (isinstance(option, ast.Constant) and option.value is ...)]
        return isinstance(value, list) and all(
            (isinstance(v, str) and "${" in v) or any(fits(v, option) for option in options) for v in value
        )
    if name in _MAPPINGS:
        return isinstance(value, dict)
    return True
