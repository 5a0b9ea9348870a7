"""Names in the source text of installed modules, followed through their imports; nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path


@dataclass
class SourceModule:
    """One module; ``names`` gives what each top-level name is bound to, an import as (module, name in it)."""

    name: str
    path: Path | None
    names: dict[str, ast.AST | tuple[str, str | None]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    is_package: bool = False


@lru_cache(maxsize=2048)
def _locate(name: str) -> tuple[Path | None, bool] | None:
    """File of a module (None: a folder without one) and whether it is a package; None where there is no such module."""
    top, _, rest = name.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    if not rest:
        return (Path(spec.origin) if spec.has_location and spec.origin else None), bool(spec.submodule_search_locations)
    parent = ".".join(rest.split(".")[:-1])
    for root in spec.submodule_search_locations or ():
        folder = Path(root, *parent.split(".")) if parent else Path(root)
        last = rest.rpartition(".")[2]
        if (folder / last / "__init__.py").is_file():
            return folder / last / "__init__.py", True
        if (folder / f"{last}.py").is_file():
            return folder / f"{last}.py", False
        if (folder / last).is_dir():
            return None, True
        if any(folder.glob(f"{last}.*.so")):
            return None, False
    return None


@lru_cache(maxsize=2048)
def source_module(name: str) -> SourceModule | None:
    """The module of this name, None where there is none."""
    located = _locate(name)
    if located is None:
        return None
    path, is_package = located
    module = SourceModule(name, path, is_package=is_package)
    if path is not None and path.suffix == ".py":
        _collect(ast.parse(path.read_bytes()).body, module)
    return module


def _collect(body: list[ast.stmt], module: SourceModule) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            module.names[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            for alias in node.names:
                if alias.name == "*":
                    module.stars.append(source)
                else:
                    module.names[alias.asname or alias.name] = (source, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                module.names[alias.asname or top] = (alias.name if alias.asname else top, None)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(name, ast.Name):
                        module.names[name.id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            module.names[node.target.id] = node.value
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                _collect(getattr(node, part, []), module)


def _absolute(module: SourceModule, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = module.name.split(".")
    base = base[: len(base) - node.level + module.is_package]
    return ".".join([*base, node.module] if node.module else base)


Found = tuple[SourceModule, ast.ClassDef | ast.FunctionDef]


def look_up(
    module: SourceModule, name: str, seen: frozenset[tuple[str, str]] = frozenset()
) -> Found | SourceModule | None:
    """The definition or module that ``name`` means in ``module``.

    Raises KeyError where it is absent, returns None where the source does not tell.
    """
    key = (module.name, name)
    if key in seen or (module.path is None and not module.is_package) or (module.path and module.path.suffix != ".py"):
        return None
    seen |= {key}
    entry = module.names.get(name)
    if isinstance(entry, ast.ClassDef | ast.FunctionDef):
        return module, entry
    if isinstance(entry, tuple):
        source, attribute = entry
        origin = source_module(source)
        if origin is None:
            return None
        return origin if attribute is None else look_up(origin, attribute, seen)
    if isinstance(entry, ast.Name):
        return look_up(module, entry.id, seen)
    if entry is not None:
        return None
    for star in module.stars:
        origin = source_module(star)
        if origin is not None:
            try:
                return look_up(origin, name, seen)
            except KeyError:
                continue
    submodule = source_module(f"{module.name}.{name}") if module.is_package else None
    if submodule is not None:
        return submodule
    if "__getattr__" in module.names:
        return None
    raise KeyError(name)


def public_names(module: SourceModule, depth: int = 0) -> list[str]:
    """What may be named in the module, submodules included."""
    names = [name for name in module.names if not name.startswith("_")]
    for star in module.stars if depth < 3 else ():
        origin = source_module(star)
        names += public_names(origin, depth + 1) if origin else []
    if module.is_package and module.path is not None:
        names += [file.stem for file in module.path.parent.glob("*.py") if not file.stem.startswith("_")]
        names += [file.parent.name for file in module.path.parent.glob("*/__init__.py")]
    return sorted(set(names))
