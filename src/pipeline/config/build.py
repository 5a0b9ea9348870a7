"""The one place where a configuration becomes objects."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.config.compose import ConfigurationMistakes
from pipeline.config.interpolation import DERIVED, InterpolationError, Keys, Resolver, dotted, has_interpolation, leaves
from pipeline.config.targets import TARGET, target_nodes
from pipeline.config.trust import resolve_target
from pipeline.errors import UserError


def fill_derived(tree: Mapping[str, Any], derived: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy of the tree with what the data determine under ``derived`` and every reference replaced.

    Environment variables named below ``tracking`` stay as written. Raises ConfigurationMistakes.
    """
    faults: list[UserError] = []

    def note(keys: Keys, fault: InterpolationError) -> None:
        faults.append(UserError(f"{dotted(keys)}: {fault.cause}", *fault.remedies))

    filled = {**tree, DERIVED: {**(tree.get(DERIVED) or {}), **derived}}
    resolved = Resolver(filled, derived=True, environment=False).resolve(note)
    if faults:
        raise ConfigurationMistakes(faults)
    return resolved


def build(node: Any, name: str, trusted: Sequence[str] = (), /, **given: Any) -> Any:
    """Build a resolved ``_target_`` node, or each of a list of them; ``given`` are arguments that no YAML can hold.

    ``name`` is the node's key, for messages; ``trusted`` are the modules of ``trust=[...]`` on the command line.
    Objects receive plain lists and mappings. Raises UserError where a target is not allowed or refuses its
    arguments.
    """
    node = copy.deepcopy(node)
    for keys, value in leaves(node):
        if has_interpolation(value):
            raise UserError(f"{dotted((name, *keys))}: {value!r} is not resolved")
    for keys, target in target_nodes(node):
        target.pop("_convert_", None)
        try:
            resolve_target(target[TARGET], trusted)
        except UserError as error:
            raise UserError(f"{dotted((name, *keys))}: {error.cause}", *error.remedies) from None
    return _instantiate(node, name, given)


def _instantiate(node: Any, name: str, given: dict[str, Any]) -> Any:
    if isinstance(node, list):  # one by one: Hydra does not say which of a list refused
        return [_instantiate(child, dotted((name, index)), given) for index, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    # Live objects are bound to a finished partial: inside instantiate they would become OmegaConf nodes.
    try:
        built = instantiate({**node, "_partial_": True} if given else node, _convert_="all")
    except InstantiationException as error:
        inner = re.search(r"full_key: (\S+)", str(error))
        where = f"{name}.{inner[1].replace('_args_', '_args_.')}" if inner else name
        raise UserError(f"{where}: {_reason(error.__cause__ or error)}", *_asked(node)) from error
    if not given:
        return built
    if node.get("_partial_"):
        return partial(built, **given)
    try:
        return built(**given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {_reason(error)}", *_asked(node)) from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _asked(node: Any) -> list[str]:
    return [f"check the parameters of {node[TARGET]}"] if isinstance(node, dict) and TARGET in node else []
