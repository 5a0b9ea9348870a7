"""Which classes and functions a configuration may name in ``_target_``.

A configuration may come from a stranger, and building an object from it must not run foreign code. What counts is where
the object is defined, not how its path is spelled: ``monai.transforms.io.array.os.system`` is defined in ``posix``.
Prefixes such as ``torch.*`` are not safe (``torch.hub.load`` and ``monai.bundle.run`` run code from files), and
inside the trusted modules what resolves text to code, loads pickles or reads and writes files is refused by name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any

from pipeline.config.nearest import did_you_mean
from pipeline.errors import UserError

CLASSES = (
    "pipeline.launch.local",
    "pipeline.launch.ray",
    "pipeline.launch.slurm",
    "pipeline.networks",
    "pipeline.optimizers",
    "pipeline.tasks",
    "pipeline.training",
    "pipeline.transforms",
    "monai.inferers",
    "monai.losses",
    "monai.metrics",
    "monai.networks.blocks",
    "monai.networks.layers",
    "monai.networks.nets",
    "monai.optimizers",
    "monai.transforms",
    "pytorch_lightning.callbacks",
    "torch.nn.modules",
    "torch.optim",
    "torchmetrics.classification",
    "torchmetrics.segmentation",
)
FUNCTIONS = (
    "pipeline.networks",
    "monai.networks.nets.densenet",
    "monai.networks.nets.resnet",
    "monai.networks.nets.senet",
)

_BY_NAME = "looks a callable up by a name in its arguments"
_CALLABLE = "exists to call a function that it is given"
_FILES = "reads or writes files; the pipeline does that itself"
_DOWNLOAD = "loads code or weights that it downloads"
REFUSED = {
    "monai.inferers.inferer.PatchInferer": _BY_NAME,
    "monai.inferers.merger": _FILES,
    "monai.losses.perceptual": _DOWNLOAD,
    "monai.metrics.wrapper": _BY_NAME,
    "monai.networks.nets.cell_sam_wrapper": _DOWNLOAD,
    "monai.networks.nets.hovernet.HoVerNet": _DOWNLOAD,
    "monai.networks.nets.milmodel": _BY_NAME,
    "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet": _DOWNLOAD,
    "monai.networks.nets.torchvision_fc": _BY_NAME,
    "monai.networks.nets.transchex": _DOWNLOAD,
    "monai.optimizers.lr_finder": "pickles",
    "monai.transforms.adaptors": _CALLABLE,
    "monai.transforms.io": _FILES + " (and finds readers and writers by a name in its arguments)",
    "monai.transforms.utils_create_transform_ims": _FILES,
    "pytorch_lightning.callbacks.lambda_function": _CALLABLE,
    "torch.optim.lr_scheduler.LambdaLR": _CALLABLE,
    "torch.optim.lr_scheduler.MultiplicativeLR": _CALLABLE,
} | {
    f"monai.transforms.utility.{kind}.{name}{suffix}": reason
    for kind, suffix in (("array", ""), ("dictionary", "d"))
    for name, reason in {
        "CuCIM": _BY_NAME,
        "DataStats": "sets up logging",
        "ImageFilter": _BY_NAME,
        "Lambda": _CALLABLE,
        "RandCuCIM": _BY_NAME,
        "RandImageFilter": _BY_NAME,
        "RandLambda": _CALLABLE,
        "RandTorchIO": _BY_NAME,
        "RandTorchVision": _BY_NAME,
        "TorchIO": _BY_NAME,
        "TorchVision": _BY_NAME,
    }.items()
}


def within(name: str, prefixes: Sequence[str]) -> str | None:
    """The module (or object) among ``prefixes`` that ``name`` is or lies in, None where it lies in none."""
    return next((prefix for prefix in prefixes if name == prefix or name.startswith(f"{prefix}.")), None)


def check_path(path: object, trusted: Sequence[str] = ()) -> str:
    """The path, if it is a dotted name in a package that holds trusted modules; raises UserError otherwise.

    Only such packages are ever imported: importing runs code too.
    """
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise UserError(f"_target_ {path!r} is not a dotted path", "write package.module.Class")
    private = next((part for part in path.split(".") if part.startswith("_")), None)
    if private:
        raise UserError(f"_target_ {path} is not allowed: {private} is private")
    if within(path, trusted) is None:
        packages = {prefix.split(".")[0] for prefix in CLASSES}
        if path.split(".")[0] not in packages:
            raise _untrusted(path, path.rpartition(".")[0])
    return path


def check_definition(path: str, module: str, name: str, is_class: bool, trusted: Sequence[str] = ()) -> None:
    """Raise UserError unless an object defined as ``name`` in ``module`` may be built."""
    if within(module, trusted):
        return
    defined = f"{module}.{name}"
    refused = within(defined, list(REFUSED))
    if refused:
        raise UserError(f"_target_ {path} is not allowed: it {REFUSED[refused]}")
    if within(module, CLASSES if is_class else FUNCTIONS) is None:
        if not is_class and within(module, CLASSES):
            raise UserError(f"_target_ {path} is not allowed: a function; only classes of {module} may be built")
        raise _untrusted(path, module)


def _untrusted(path: str, module: str) -> UserError:
    cause = f"_target_ {path} is not allowed: {module} is not a trusted module"
    if module.split(".")[0] in sys.stdlib_module_names:
        return UserError(cause, "remove it; a configuration that names it may have been written to do harm")
    return UserError(cause, f"if you trust that code, add to the command line: trust=[{module}]")


def resolve_target(path: object, trusted: Sequence[str] = ()) -> Any:
    """Import the class or function that ``path`` names.

    ``trusted`` are modules that the user added on the command line. Raises UserError where the path is not found or
    what it names is not allowed.
    """
    name = check_path(path, trusted)
    packages = {prefix.split(".")[0] for prefix in (*CLASSES, *trusted)}
    first, *parts = name.split(".")
    found: Any = _import(first, name)
    for part in parts:
        if isinstance(found, ModuleType):
            if found.__name__.split(".")[0] not in packages:
                raise _untrusted(name, found.__name__)
            if not hasattr(found, part):
                parent = found
                found = _import(f"{found.__name__}.{part}", name, parent)
                continue
        elif not hasattr(found, part):
            raise UserError(f"_target_ {name}: there is no {part!r}", did_you_mean(part, _public(found)))
        found = getattr(found, part)
    if not isinstance(found, type | FunctionType):
        raise UserError(f"_target_ {name} is not allowed: neither a class nor a function written in Python")
    module, defined = found.__module__, found.__qualname__
    if "." in defined or getattr(sys.modules.get(module), defined, None) is not found:
        raise UserError(f"_target_ {name} is not allowed: {module}.{defined} is not that object")
    check_definition(name, module, defined, isinstance(found, type), trusted)
    return found


def _import(module: str, path: str, parent: ModuleType | None = None) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise UserError(f"_target_ {path}: {module} needs {error.name}, which is not installed") from error
        last = module.rpartition(".")[2]
        hints = (did_you_mean(last, _public(parent)),) if parent else (f"install {last}, or run where it can be found",)
        raise UserError(
            f"_target_ {path}: there is no {last!r}" + (f" in {parent.__name__}" if parent else ""), *hints
        ) from None


def _public(found: Any) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]
