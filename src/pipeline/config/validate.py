"""All mistakes of a composed configuration at once, each with where it stands and the nearest valid name."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config.compose import Composed, Composition, ConfigurationMistakes
from pipeline.config.interpolation import DERIVED, InterpolationError, Keys, Resolver, dotted, leaves
from pipeline.config.nearest import did_you_mean, nearest
from pipeline.config.plans import GROUP, OWN, PLANNING
from pipeline.config.schema_keys import keys_at
from pipeline.config.targets import check_targets
from pipeline.errors import UserError

SHOWN = 100  # faults of the schema that are told with what was meant
TRANSFORMS = "transforms"
REFERRED = ("mirror_axes", "plane_rotation")  # of that section, for the transforms that refer to them
_MISSING = "???"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def validate(
    composition: Composition,
    model: type[BaseModel],
    *,
    job_folder: Path | None = None,
    deferred: Collection[str] | None = None,
) -> Composed:
    """The configuration as a ``model`` instance and a plain tree.

    ``deferred``: sections whose targets are not judged yet; None: those that a plan is still to choose, if one is made.
    Raises ConfigurationMistakes with everything that is wrong: what composing found, unknown keys, wrong types, missing
    values, references to nothing, and targets that do not exist, are not allowed or do not take their parameters.
    """
    tree = composition.tree
    if tree is None:
        raise ConfigurationMistakes(composition.mistakes)
    check = _Check(composition, model, tree)
    trusted = check.trusted()
    check.missing_values()
    resolved = check.references()
    instance = check.schema(resolved)
    if deferred is None:
        planning = resolved.get(PLANNING) and GROUP not in composition.chosen
        deferred = set(OWN) - composition.chosen if planning else ()
    if TRANSFORMS not in deferred:
        check.unused()
    for keys, fault, remedies in check_targets(resolved, trusted):
        if keys[0] not in deferred:
            check.add(keys, fault, *remedies)
    mistakes = [*composition.mistakes, *check.mistakes]
    if mistakes or instance is None:
        raise ConfigurationMistakes(mistakes)
    return Composed(
        composition.command,
        instance,
        tree,
        composition.overrides,
        trusted,
        job_folder,
        composition.folders.paths,
        composition.chosen,
    )


class _Check:
    def __init__(self, composition: Composition, model: type[BaseModel], tree: dict[str, Any]) -> None:
        self.composition = composition
        self.model = model
        self.tree = tree
        self.mistakes: list[UserError] = []
        self._told: set[Keys] = set()

    def add(self, keys: Keys, fault: str, *remedies: str) -> None:
        """Note one mistake, unless these keys already have one."""
        if keys not in self._told and ".".join(map(str, keys[:1])) not in self.composition.doubtful:
            self._told.add(keys)
            where = self.composition.origin(keys)
            cause = f"{dotted(keys)} ({where}): {fault}" if keys else f"{where}: {fault}"
            self.mistakes.append(UserError(cause, *(remedy for remedy in remedies if remedy)))

    def trusted(self) -> tuple[str, ...]:
        """The modules of ``trust=[...]``; only the command line may name any."""
        names = self.tree.get("trust") or []
        if names and self.composition.origin(("trust",)) != "command line":
            listed = ",".join(map(str, names)) if isinstance(names, list) else names
            self.add(
                ("trust",), "only the command line may add trusted modules", f"remove it, and run with trust=[{listed}]"
            )
            return ()
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return ()  # a wrong type, which the schema tells
        folder = str(Path.cwd())
        if names and folder not in sys.path and "" not in sys.path:
            sys.path.append(folder)  # the console script does not look in the working folder
        return tuple(names)

    def missing_values(self) -> None:
        """Values that are ``???``, which the user must give, and those that nothing can be done with."""
        for keys, value in leaves(self.tree):
            if value == _MISSING:
                self.add(keys, "a value is needed", f"give it: {dotted(keys)}=VALUE")
            elif isinstance(value, float) and math.isnan(value):
                self.add(keys, "is not a number (NaN)", "write a number")
            elif isinstance(value, str) and _CONTROL.search(value):
                self.add(keys, f"{_short(value)}: holds a control character", "take it out")
            elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
                self.add(keys, "is too large for a whole number of 64 bits", "write a smaller number")

    def unused(self) -> None:
        """Keys of ``transforms`` that the command line gives and no transform refers to."""
        section = self.tree.get(TRANSFORMS)
        if not isinstance(section, dict):
            return
        written = json.dumps(section, default=repr)
        for key in REFERRED:
            keys = (TRANSFORMS, key)
            given = key in section and self.composition.origin(keys) == "command line"
            if given and f"${{{dotted(keys)}}}" not in written:
                remedy = "set augmentation=nnunet or augmentation=upright, or leave it out"
                self.add(keys, "no transform of this augmentation uses it", remedy)

    def references(self) -> dict[str, Any]:
        """The tree with references resolved, except those that wait for the data."""

        def note(keys: Keys, fault: InterpolationError) -> None:
            self.add(keys, fault.cause, *fault.remedies)

        return Resolver(self.tree, derived=False, environment=True).resolve(note)

    def schema(self, resolved: dict[str, Any]) -> BaseModel | None:
        """The model's instance, None where the tree does not fit it."""
        resolved = self._typed_text(resolved)
        try:
            return self._instance(resolved)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True)
        by_keys: dict[Keys, list[Any]] = {}
        absent: dict[Keys, list[str]] = {}
        for detail in details:
            keys = _path(detail["loc"], resolved)
            if detail["type"] == "missing":
                absent.setdefault(keys[:-1], []).append(dotted(keys[-1:]))
            else:
                by_keys.setdefault(keys, []).append(detail)
        for keys, names in absent.items() if not self.composition.incomplete else ():
            given = " ".join(f"{dotted((*keys, name))}=VALUE" for name in names[:3])
            self.add(
                (*keys, names[0]), f"missing: {', '.join(names)}", f"give {given}{' ...' if len(names) > 3 else ''}"
            )
        for keys, faults in list(by_keys.items())[:SHOWN]:
            self._schema_fault(keys, faults)
        if len(by_keys) > SHOWN:
            self.mistakes.append(UserError(f"... and {len(by_keys) - SHOWN} more mistakes of this kind"))
        return None

    def _instance(self, resolved: dict[str, Any]) -> BaseModel:
        # JSON, because strict JSON takes a list for a tuple and text for a path, and nothing else for anything else
        return self.model.model_validate_json(json.dumps(resolved, default=repr), strict=True)

    def _typed_text(self, resolved: dict[str, Any]) -> dict[str, Any]:
        """Where text is wanted, a number is that text: as typed on the command line (``run=1e5``), or as one of the few
        values that a key may have (``precision: 32``).
        """
        try:
            self._instance(resolved)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                keys = _path(detail["loc"], resolved)
                number, text = detail["input"], None
                if isinstance(number, int | float) and detail["type"] == "string_type":
                    text = self.composition.raw_text(keys)
                elif isinstance(number, int | float) and detail["type"] == "literal_error":
                    text = str(number) if f"'{number}'" in detail["ctx"]["expected"] else None
                if text:
                    _set(resolved, keys, text)
                    _set(self.tree, keys, text)
        return resolved

    def _schema_fault(self, keys: Keys, faults: list[Any]) -> None:
        kinds = {fault["type"] for fault in faults}
        value = faults[0]["input"]
        if any(keys[: len(told)] == told for told in self._told if told):
            return
        if kinds == {"extra_forbidden"}:
            self._unknown(keys)
        elif isinstance(value, str) and f"${{{DERIVED}." in value:
            self.add(keys, f"{value!r} is known only after the data are read", "write a value")
        elif kinds <= {"value_error", "assertion_error"}:
            self.add(keys, "; ".join(_message(fault) for fault in faults))
        elif isinstance(value, str) and kinds <= {"literal_error", "enum"} and len(faults) == 1:
            expected = _message(faults[0])
            options = [option.strip("'") for option in faults[0]["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            near = nearest(value, options)
            self.add(keys, f"{value!r}: {expected}", f"did you mean {near[0]}?" if near else "")
        else:
            self.add(keys, f"{_short(value)}: {' or '.join(dict.fromkeys(map(_message, faults)))}")

    def _unknown(self, keys: Keys) -> None:
        *above, name = keys
        siblings = keys_at(self.model, tuple(above))
        prefix = "".join(f"{key}." for key in above)
        if nearest(str(name), siblings):
            hint = did_you_mean(str(name), siblings, prefix)
        else:
            elsewhere = _same_last_key(str(name), self.tree)
            hint = f"did you mean {' or '.join(elsewhere)}?" if elsewhere else did_you_mean(str(name), siblings, prefix)
        self.add(keys, "unknown key", hint)


def _path(location: Iterable[str | int], tree: Any) -> Keys:
    """Pydantic's location as keys of the tree: names of union members and the like are left out."""
    keys: list[str | int] = []
    node, parts = tree, list(location)
    for index, part in enumerate(parts):
        key = _key(node, part) if isinstance(node, dict) else part
        if isinstance(node, dict) and key is not None:
            keys.append(key)
            node = node[key]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            keys.append(part)
            node = node[part]
        elif isinstance(node, dict) and index == len(parts) - 1 and part != "[key]":
            keys.append(part)
    return tuple(keys)


def _key(node: Mapping[Any, Any], part: str | int) -> Any:
    """The key of ``node`` that reads as ``part``, which JSON has as text; None where there is none."""
    return part if part in node else next((key for key in node if str(key) == str(part)), None)


def _set(tree: Any, keys: Keys, value: Any) -> None:
    for key in keys[:-1]:
        tree = tree[key]
    tree[keys[-1]] = value


def _same_last_key(name: str, tree: dict[str, Any]) -> list[str]:
    found = [
        dotted(keys) for keys, _ in leaves(tree) if keys and keys[-1] == name and DERIVED not in keys and len(keys) > 1
    ]
    return found[:2]


def _message(fault: Any) -> str:
    text: str = fault["msg"]
    for start in ("Value error, ", "Assertion failed, "):
        text = text.removeprefix(start)
    text = text.replace("Input should be a valid dictionary", "Input should be a mapping of keys to values")
    return text.replace("Input should", "should").replace("should be a valid string", "should be text")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
