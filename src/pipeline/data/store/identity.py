"""What an entry depends on: the name of an entry is a hash of all of it."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.data.case import Case, Source

# Packages whose version may change what preprocessing computes; everything else is known by its source.
LIBRARIES = ("monai", "torch", "numpy", "scipy", "nibabel", "SimpleITK", "pillow", "tifffile", "scikit-image")
IMPORTED_AS = {"pillow": "PIL", "scikit-image": "skimage"}


def entry_key(common: str, case: Case, digests: Mapping[str, str]) -> str:
    """The name of a case's entry: a hash of what all cases have in common and of the content of its files.

    ``common``: a hash of the former. ``digests``: sha256 of each file of the case, by its path or the end of it.
    """

    def content(source: Source) -> list[str]:
        return ["".join(source.path.suffixes[-2:]).lower(), _digest(source, digests)]

    files = {
        "images": [[modality, *content(source)] for modality, source in case.images.items()],
        "label": content(case.label) if case.label is not None else None,
    }
    return hashlib.sha256(json.dumps([common, files], sort_keys=True).encode()).hexdigest()[:32]


def _digest(source: Source, digests: Mapping[str, str]) -> str:
    tail = str(source.path.parent / source.name)
    if tail in digests:
        return digests[tail]
    while "/" in tail:
        tail = tail.partition("/")[2]
        if tail in digests:
            return digests[tail]
    raise KeyError(f"{source.path}: its hash is not known")


def library_versions() -> dict[str, str]:
    """Installed versions of LIBRARIES."""
    return dict(_versions(LIBRARIES))


@lru_cache(maxsize=2)
def _versions(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = []
    for name in names:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "none"))
    return tuple(found)


def code_hashes(objects: Iterable[Any]) -> dict[str, str]:
    """sha256 of the source of each module that defines ``objects``, or what these modules took from their package.

    Modules of LIBRARIES are left out, their versions are known.
    """
    known = {IMPORTED_AS.get(name, name) for name in LIBRARIES} | {"builtins"}
    found: dict[str, str] = {}
    todo = [name for thing in objects for name in _home(thing)]
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in found or top in known or top in sys.stdlib_module_names:
            continue
        module = importlib.import_module(name)
        file = getattr(module, "__file__", None)
        found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
        todo += [other for value in vars(module).values() for other in _home(value) if other.partition(".")[0] == top]
    return dict(sorted(found.items()))


def _home(thing: Any) -> Iterator[str]:
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    if isinstance(name, str) and name in sys.modules and name != "__main__":
        yield name


def parts_of(transform: Any) -> Iterator[Any]:
    """A transform's class or the function itself, and those of the transforms it is composed of."""
    yield transform if hasattr(transform, "__name__") else type(transform)
    inner = [transform.func] if hasattr(transform, "func") else []
    for part in [*inner, *(getattr(transform, "transforms", None) or ())]:
        yield from parts_of(part)


def targets_of(recipe: str) -> Iterator[Any]:
    """What the ``_target_`` names of a configuration in JSON stand for, as far as it is imported."""
    try:
        todo = [json.loads(recipe)]
    except ValueError:
        return
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            todo += node.values()
            module, _, name = str(node.get("_target_", "")).rpartition(".")
            if module in sys.modules:
                yield sys.modules[module]
                yield getattr(sys.modules[module], name, None)
