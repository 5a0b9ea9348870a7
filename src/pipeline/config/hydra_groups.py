"""The part of composing that is Hydra's: which folders it searches, and the groups merged in order."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.defaults import Folders, Walk
from pipeline.config.hydra_settings import hydra_mistakes
from pipeline.config.overrides import Choice, Value
from pipeline.config.yaml_files import YamlFile, read_yaml
from pipeline.errors import UserError

VERSION_BASE = "1.3"
Layers = list[tuple[tuple[str, ...], YamlFile]]


def search_path(main: Path, command: str, config_dirs: Sequence[Path], parsed: Sequence[Choice | Value]) -> list[Path]:
    """Folders after ``main``, in Hydra's order: --config-dir, then hydra.searchpath (command line, else the file's)."""
    named = [item.value for item in parsed if isinstance(item, Value) and item.keys == ("hydra", "searchpath")]
    entries: Any = named[-1] if named else None
    primary = Folders((main, *config_dirs)).find(command)
    if not named and primary is not None:
        entries = (read_yaml(primary).content.get("hydra") or {}).get("searchpath")
    if not isinstance(entries, list | None) or not all(isinstance(entry, str) for entry in entries or ()):
        raise UserError(
            f"hydra.searchpath: {entries!r} is not a list of folders", "hydra.searchpath=[file:///a/folder]"
        )
    folders = [Path(folder) for folder in config_dirs] + [_folder(entry) for entry in entries or ()]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"{folder}: there is no such configuration folder", "check --config-dir and hydra.searchpath"
            )
    return [folder.resolve() for folder in folders]


def _folder(entry: str) -> Path:
    scheme, _, path = entry.rpartition("://")
    if scheme in ("", "file"):
        return Path(path)
    top, *below = re.split(r"[./]", path)
    found = importlib.util.find_spec(top) if scheme == "pkg" and top else None  # a top-level name: nothing is imported
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"hydra.searchpath: {entry!r} is not a folder", "write file:///a/folder or pkg://package.folder"
        )
    return Path(found.submodule_search_locations[0], *below)


def compose_groups(
    command: str, folders: Folders, walk: Walk, choices: Iterable[tuple[Choice, list[str] | None]]
) -> tuple[Any, Layers, list[UserError]]:
    """Merge the groups with Hydra: an OmegaConf tree (None where it refuses), the files in order, what is refused."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with first_folder(walk.repaired, folders, command) as first, _no_other_hydra():
        paths = [*first, *folders.paths]
        overrides = [_group_override(choice, options) for choice, options in choices]
        if len(paths) > 1:
            quoted = ",".join('"file://{}"'.format(str(path).replace('"', '\\"')) for path in paths[1:])
            overrides.append(f"hydra.searchpath=[{quoted}]")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with initialize_config_dir(str(paths[0]), version_base=VERSION_BASE):
                    tree = hydra_compose(command, overrides=overrides, return_hydra_config=True)
                    loader = GlobalHydra.instance().config_loader()
                    order = loader.compute_defaults_list(command, overrides, RunMode.RUN).defaults
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
            reasons = [" ".join(line.split()) for line in str(error.__cause__ or error).splitlines() if line.strip()]
            cause = f"{command}.yaml: {reasons[0] if reasons else type(error).__name__}"
            return None, [], [UserError(cause, *reasons[1:6])]
        OmegaConf.set_struct(tree, False)
        refused = hydra_mistakes(to_plain(tree.pop("hydra")))

    layers = []
    for default in order:
        path = folders.find(default.config_path or "")
        if path is not None and (default.config_path or "") != "hydra/config":
            package = tuple(part for part in (default.package or "").split(".") if part and part != "_global_")
            with contextlib.suppress(UserError):
                layers.append((package, read_yaml(path)))
    return tree, layers, refused


@contextlib.contextmanager
def _no_other_hydra() -> Iterator[None]:
    """Set aside the Hydra that runs a job of a multirun: there may be one at a time."""
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


@contextlib.contextmanager
def first_folder(
    repaired: Mapping[str, tuple[str, dict[str, Any]]], folders: Folders, command: str
) -> Iterator[list[Path]]:
    """A folder with the repaired files, searched before all others; none where there is no need for it.

    ``repaired``: package and content, by name.

    Hydra looks for the primary configuration in the first folder before it knows of the others, so it is there too.
    """
    primary = folders.find(command)
    if primary is None or (not repaired and folders.paths[0] in primary.parents):
        yield []
        return
    with tempfile.TemporaryDirectory() as name:
        shutil.copyfile(primary, Path(name, primary.name))
        for config, (package, content) in repaired.items():
            path = Path(name, f"{config}.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            entries = content.get("defaults")
            kept = (
                content | {"defaults": [e for e in entries if e is not None]} if isinstance(entries, list) else content
            )
            header = f"# @package {package}\n" if package else ""
            path.write_text(header + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), encoding="utf-8")
        yield [Path(name)]


def _group_override(choice: Choice, options: list[str] | None) -> str:
    sign = "+" if choice.text.startswith("+") else ""
    if options is None:
        return f"~{choice.group}"
    value = f"[{','.join(options)}]" if isinstance(choice.option, list) else options[0]
    return f"{sign}{choice.group}={value}"


def to_plain(tree: Any) -> dict[str, Any]:
    """The OmegaConf tree as plain containers, interpolations as text."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(tree, resolve=False)  # type: ignore[assignment]
    return plain
