"""Checks of every ``_target_`` node: the path, the parameters and, where an annotation is plain, their types."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.config.annotations import fits
from pipeline.config.interpolation import Keys, has_interpolation
from pipeline.config.nearest import did_you_mean
from pipeline.config.signatures import Definition, MissingNameError, Parameter, Signature, find_definition
from pipeline.config.trust import check_definition, check_path, resolve_target
from pipeline.errors import UserError

TARGET = "_target_"
SPECIAL = (TARGET, "_args_", "_convert_", "_partial_", "_recursive_")

# Parameters that the program gives when it builds the node, by the node's keys.
SUPPLIED: Mapping[str, frozenset[str]] = {"optimizer": frozenset({"params"})}

Fault = tuple[Keys, str, tuple[str, ...]]  # where, what, remedies


def target_nodes(node: Any, keys: Keys = ()) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Every mapping with a ``_target_``, outermost first, with its keys."""
    if isinstance(node, dict):
        if TARGET in node:
            yield keys, node
        for key, child in node.items():
            yield from target_nodes(child, (*keys, key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from target_nodes(child, (*keys, index))


def check_targets(tree: Any, trusted: Sequence[str] = ()) -> list[Fault]:
    """All faults of all target nodes of a plain tree; nothing is imported unless its source does not tell."""
    return [fault for keys, node in target_nodes(tree) for fault in _check(keys, node, trusted)]


def _check(keys: Keys, node: dict[str, Any], trusted: Sequence[str]) -> Iterator[Fault]:
    here = (*keys, TARGET)
    for key in node:
        if str(key).startswith("_") and str(key).endswith("_") and key not in SPECIAL:
            yield (*keys, key), "unknown key", (did_you_mean(str(key), SPECIAL),)
    try:
        path = check_path(node[TARGET], trusted)
        definition = find_definition(path)
        if definition is None:
            definition = _imported(path, trusted)
        else:
            check_definition(path, definition.module, definition.name, definition.is_class, trusted)
    except MissingNameError as error:
        prefix = "" if error.module == "this Python" else f"{error.module}."
        yield here, f"there is no {error.name!r} in {error.module}", (did_you_mean(error.name, error.valid, prefix),)
        return
    except UserError as error:
        yield here, error.cause, error.remedies
        return
    if definition.signature is not None:
        yield from _check_parameters(keys, node, path, definition, definition.signature)


def _check_parameters(
    keys: Keys, node: dict[str, Any], path: str, definition: Definition, signature: Signature
) -> Iterator[Fault]:
    given = {
        str(key): value for key, value in node.items() if not (str(key).startswith("_") and str(key).endswith("_"))
    }
    for name, value in given.items():
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.open:
                hint = did_you_mean(name, [p for p in signature.parameters if not p.startswith("_")])
                yield (*keys, name), f"{definition.name} has no parameter {name!r}", (hint,)
        elif not _fits(value, parameter):
            assert parameter.annotation is not None
            wanted = ast.unparse(parameter.annotation).strip("'\"")
            yield (*keys, name), f"{value!r} is of the wrong type", (f"{path} takes {name}: {wanted}",)
    if node.get("_partial_") or "_args_" in node:
        return
    supplied = SUPPLIED.get(".".join(map(str, keys)), frozenset())
    missing = [n for n, p in signature.parameters.items() if p.required and n not in given and n not in supplied]
    if missing:
        yield (*keys, TARGET), f"{definition.name} needs {', '.join(missing)}", ("add the missing parameters",)


def _fits(value: Any, parameter: Parameter) -> bool:
    if has_interpolation(value) or parameter.annotation is None:
        return True
    if value is None and isinstance(parameter.default, ast.Constant) and parameter.default.value is None:
        return True
    return fits(value, parameter.annotation)


def _imported(path: str, trusted: Sequence[str]) -> Definition:
    """The same facts from the live object, for code whose source does not tell."""
    found = resolve_target(path, trusted)
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return Definition(found.__module__, found.__qualname__, isinstance(found, type), None)
    named = {
        p.name: Parameter(None, None, required=p.default is p.empty)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    signature = Signature(named, open=any(p.kind is p.VAR_KEYWORD for p in parameters))
    return Definition(found.__module__, found.__qualname__, isinstance(found, type), signature)
