"""What a dotted path names and which parameters it takes, read from source text: nothing is imported.

Importing torch and monai takes seconds; a typo must be answered at once, and a module that a stranger's file names
must not run at all before it is known to be trusted. Where the source does not tell (compiled code, computed names)
the answer is None and the check is left to the import in ``trust.resolve_target``.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

from pipeline.config.source_modules import Found, SourceModule, look_up, public_names, source_module


class MissingNameError(LookupError):
    """``name`` is not in ``module``, which has ``valid``."""

    def __init__(self, module: str, name: str, valid: list[str]) -> None:
        super().__init__(f"{module} has no {name}")
        self.module = module
        self.name = name
        self.valid = valid


@dataclass(frozen=True)
class Parameter:
    """One parameter; annotation and default as written, in the names of its own module."""

    annotation: ast.expr | None
    default: ast.expr | None
    required: bool


@dataclass(frozen=True)
class Signature:
    """Parameters by name; ``open`` where further ones are accepted unseen."""

    parameters: dict[str, Parameter]
    open: bool = False


@dataclass(frozen=True)
class Definition:
    """A class or function where it is defined; ``signature`` is None where the source does not tell."""

    module: str
    name: str
    is_class: bool
    signature: Signature | None


@lru_cache(maxsize=1024)
def find_definition(path: str) -> Definition | None:
    """The class or function that a dotted path names, None where the source does not tell.

    Raises MissingNameError where a part of the path does not exist.
    """
    first, *rest = path.split(".")
    here = source_module(first)
    if here is None:
        raise MissingNameError("this Python", first, [])
    for index, part in enumerate(rest):
        # a submodule before a name of the package, so that torch/__init__.py is not read for torch.nn
        submodule = source_module(f"{here.name}.{part}") if index < len(rest) - 1 else None
        if submodule is not None:
            here = submodule
            continue
        try:
            found = look_up(here, part)
        except KeyError:
            raise MissingNameError(here.name, part, public_names(here)) from None
        except (SyntaxError, ValueError, OSError):
            return None
        if found is None:
            return None
        if isinstance(found, tuple):
            if index != len(rest) - 1:
                return None
            module, node = found
            return Definition(module.name, node.name, isinstance(node, ast.ClassDef), _signature(module, node, 0))
        here = found
    return None


def _signature(module: SourceModule, node: ast.ClassDef | ast.FunctionDef, depth: int) -> Signature | None:
    if depth > 12:
        return None
    if isinstance(node, ast.FunctionDef):
        return _of_function(module, node, node.args.posonlyargs + node.args.args, None, depth)
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    if "__init__" in methods:
        arguments = methods["__init__"].args
        return _of_function(module, methods["__init__"], (arguments.posonlyargs + arguments.args)[1:], node, depth)
    if "__new__" in methods or any(keyword.arg == "metaclass" for keyword in node.keywords):
        return None
    bases = _bases(module, node)
    if bases is None:
        return None
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        parameters: dict[str, Parameter] = {}
        for base_module, base in bases:
            inherited = _signature(base_module, base, depth + 1)
            parameters |= inherited.parameters if inherited else {}
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                parameters[item.target.id] = Parameter(item.annotation, item.value, item.value is None)
        return Signature(parameters)
    for base_module, base in bases:
        signature = _signature(base_module, base, depth + 1)
        if signature is None or signature.parameters or signature.open:
            return signature
    return Signature({})


def _bases(module: SourceModule, node: ast.ClassDef) -> list[tuple[SourceModule, ast.ClassDef]] | None:
    """The definitions of the base classes; ABC, Generic, Protocol and object add no parameter and are left out."""
    bases = []
    for expression in node.bases:
        inner = expression.value if isinstance(expression, ast.Subscript) else expression
        if ast.unparse(inner).rpartition(".")[2] in ("object", "ABC", "Generic", "Protocol"):
            continue
        found = _expression(module, inner)
        if found is None or not isinstance(found[1], ast.ClassDef):
            return None
        bases.append((found[0], found[1]))
    return bases


def _expression(module: SourceModule, node: ast.expr) -> Found | None:
    here: SourceModule = module
    for part in ast.unparse(node).split("."):
        try:
            found = look_up(here, part)
        except KeyError:
            return None
        if found is None or isinstance(found, tuple):
            return found
        here = found
    return None


def _of_function(
    module: SourceModule, node: ast.FunctionDef, positional: list[ast.arg], owner: ast.ClassDef | None, depth: int
) -> Signature | None:
    defaults = node.args.defaults
    # a method's self was taken off the front, so defaults are matched from the end
    padded: list[ast.expr | None] = [None] * (len(positional) - len(defaults)) + list(defaults)[
        -len(positional) or len(defaults) :
    ]
    parameters = {
        argument.arg: Parameter(argument.annotation, default, default is None)
        for argument, default in zip(positional, padded, strict=True)
    }
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        parameters[argument.arg] = Parameter(argument.annotation, default, default is None)
    if node.args.kwarg is None:
        return Signature(parameters)
    further = _passed_on(module, node, node.args.kwarg.arg, owner, depth)
    if further is None:
        return Signature(parameters, open=True)
    rest = {name: parameter for name, parameter in further.parameters.items() if name not in parameters}
    return Signature(parameters | rest, further.open)


def _passed_on(
    module: SourceModule, node: ast.FunctionDef, kwargs: str, owner: ast.ClassDef | None, depth: int
) -> Signature | None:
    """What ``**kwargs`` may hold: the parameters of the calls it is passed to. None where that cannot be told."""
    accepted: dict[str, Parameter] = {}
    is_open, calls, uses, understood = False, 0, 0, 0
    for item in ast.walk(node):
        if isinstance(item, ast.Name) and item.id == kwargs:
            uses += 1
        if not isinstance(item, ast.Call):
            continue
        if ast.unparse(item.func) == f"{kwargs}.get" and item.args and isinstance(item.args[0], ast.Constant):
            understood += 1
            accepted.setdefault(str(item.args[0].value), Parameter(None, None, required=False))
        if not any(keyword.arg is None and ast.unparse(keyword.value) == kwargs for keyword in item.keywords):
            continue
        callee = _callee(module, item, owner, depth)
        if callee is None:
            return None
        given = {keyword.arg for keyword in item.keywords if keyword.arg}
        names = list(callee.parameters)[len(item.args) :]
        accepted |= {name: callee.parameters[name] for name in names if name not in given}
        is_open = is_open or callee.open
        calls += 1
        understood += 1
    return Signature(accepted, is_open) if calls and uses == understood else None


def _callee(module: SourceModule, call: ast.Call, owner: ast.ClassDef | None, depth: int) -> Signature | None:
    if ast.unparse(call.func) == "super().__init__" and owner is not None:
        for base_module, base in _bases(module, owner) or ():
            return _signature(base_module, base, depth + 1)
        return None
    if isinstance(call.func, ast.Name | ast.Attribute):
        found = _expression(module, call.func)
        return _signature(*found, depth + 1) if found else None
    return None
