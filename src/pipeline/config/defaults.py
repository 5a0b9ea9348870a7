"""The files that a configuration is made of: search folders, groups, and a check of every defaults list.

Hydra stops at the first fault in a defaults list and ignores a misspelled keyword (hydra#1951); here all are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config.nearest import did_you_mean, nearest
from pipeline.config.plans import GROUP, left_beside_choices
from pipeline.config.yaml_files import YamlFile, read_yaml, shown
from pipeline.errors import UserError

KEYWORDS = ("override", "optional")
MOST_FILES = 500  # a configuration that reads more is not one that a person wrote


@dataclass(frozen=True)
class Folders:
    """The folders that are searched for configuration files, first match wins."""

    paths: tuple[Path, ...]

    def find(self, config: str) -> Path | None:
        """The file of ``network/unet``, None where no folder has it; names that climb out of the folders have none."""
        if climbs(config):
            return None
        return next((path for folder in self.paths if (path := folder / f"{config}.yaml").is_file()), None)

    def hidden(self, config: str) -> list[Path]:
        """Files of this name that differ from the one found and lie in folders searched later."""
        files = [path for folder in self.paths if (path := folder / f"{config}.yaml").is_file()]
        return [path for path in files[1:] if path.read_bytes() != files[0].read_bytes()]

    @cached_property
    def groups(self) -> list[str]:
        """All groups, such as ``network`` or ``data/source``."""
        found = {
            str(file.parent.relative_to(folder))
            for folder in self.paths
            for file in folder.rglob("*.yaml")
            if file.parent != folder
        }
        return sorted(found)

    def options(self, group: str) -> list[str]:
        """The names that ``group=NAME`` accepts."""
        if climbs(group) and group != ".":
            return []
        return sorted(
            {file.stem for folder in self.paths for file in (folder / group).glob("*.yaml") if file.is_file()}
        )


def climbs(name: str) -> bool:
    """Whether a name is a path out of its folder, or none at all: a configuration must not name foreign files."""
    return any(part in ("", ".", "..") for part in name.split("/"))


def option_names(value: Any) -> list[str] | None:
    """The options that a group is given: one, several, or None for none."""
    if value is None:
        return None
    return [str(option) for option in value] if isinstance(value, list) else [str(value)]


@dataclass
class Walk:
    """Follows the defaults lists from the primary configuration and notes what is wrong on the way.

    ``repaired`` holds, per configuration, a content with which Hydra can go on, so that the values can be checked in
    the same pass: the nearest valid name stands for a misspelled one. ``doubtful`` are groups for which there is none,
    and ``incomplete`` says that something had to be left out. ``pruned`` are plans of which ``repaired`` holds what is
    left beside the user's choices.
    """

    folders: Folders
    choices: Mapping[str, Sequence[str] | None]  # from the command line, by group
    mistakes: list[UserError] = field(default_factory=list)
    repaired: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    pruned: set[str] = field(default_factory=set)
    incomplete: bool = False
    _visited: dict[str, YamlFile] = field(default_factory=dict)
    _overridden: list[tuple[str, str, str, int]] = field(default_factory=list)
    _visits: int = 0

    @property
    def plans(self) -> list[YamlFile]:
        """The plans that are used, be it in part."""
        return [file for config, file in self._visited.items() if config.startswith(f"{GROUP}/")]

    def run(self, primary: str) -> None:
        """Check everything that ``primary`` refers to."""
        self._visit(primary, ())
        for group, options in self.choices.items():
            for option in options or ():
                self._visit(f"{group.split('@')[0]}/{option}", (primary,))
        for where, config, key, index in self._overridden:
            if key not in self.declared:
                hint = did_you_mean(key, self.declared, "override /")
                self.mistakes.append(UserError(f"{where}: override /{key}: {primary}.yaml has no such default", hint))
                self._drop(config, index)
        for config, content in left_beside_choices(self._visited, self.choices).items():
            if config not in self.repaired:
                self.repaired[config] = ("_global_", content)
                self.pruned.add(config)

    def _visit(self, config: str, above: tuple[str, ...]) -> None:
        path = self.folders.find(config)
        self._visits += 1
        if path is None or config in above:
            return
        for hidden in self.folders.hidden(config):
            cause = f"{shown(hidden)} is hidden by {shown(path)}, which is searched first"
            self._add(UserError(cause, "give it another name", "or replace all configurations: --config-path FOLDER"))
        if self._visits > MOST_FILES:
            raise UserError(f"{shown(path)}: too large: more than {MOST_FILES} files through defaults lists")
        try:
            file = read_yaml(path)
        except UserError as error:
            self._add(error)
            self.repaired[config] = ("_global_", {})
            self.incomplete = True
            return
        self._visited[config] = file
        if config.startswith(("experiment/", f"{GROUP}/")) and file.package != "_global_":
            self._add(
                UserError(
                    f"{shown(path)}: an option of {config.partition('/')[0]} sets keys of the whole configuration",
                    "let the file open with the line: # @package _global_",
                )
            )
            self.repaired[config] = ("_global_", dict(file.content))
        entries = file.content.get("defaults", [])
        if not isinstance(entries, list):
            self._add(
                UserError(
                    f"{shown(path)}: defaults: is a {type(entries).__name__}, not a list", "write - group: option"
                )
            )
            self._replace(config, file, {})
            return
        for index, entry in enumerate(entries):
            self._entry(config, file, index, entry, (*above, config))

    def _entry(self, config: str, file: YamlFile, index: int, entry: Any, above: tuple[str, ...]) -> None:
        where = f"{shown(file.path)}:{file.line(('defaults', index)) or 1}"
        parent = config.rpartition("/")[0]
        if isinstance(entry, str):
            self._config_entry(config, file, index, entry, parent, where, above)
            return
        if not isinstance(entry, dict) or len(entry) != 1:
            self._fault(config, index, where, f"defaults: {entry!r} is not an entry", "write - group: option")
            return
        (key, value), *_ = entry.items()
        before = len(self.mistakes)
        *words, name = str(key).split() or [""]
        keywords = [near for word in words for near in self._keyword(where, str(key), word)]
        group, _, package = name.partition("@")
        group = group[1:] if group.startswith("/") else f"{parent}/{group}".lstrip("/")
        if group.split("/")[0] == "hydra" or "${" in f"{name}{value}":
            return
        options = option_names(None if value == "???" else value)
        known = self._group(where, str(key), group, parent, optional="optional" in keywords and options is None)
        if known is None:
            self._drop(config, index)
            return
        full = f"{known}@{package}" if package else known
        if "override" in keywords:
            self._overridden.append((where, config, full, index))
        else:
            self.declared.add(full)
        if options is not None and full not in self.choices:
            options = [near for option in options for near in self._option(where, known, option)]
            for option in options:
                self._visit(f"{known}/{option}", above)
        if len(self.mistakes) > before:
            chosen: Any = options if isinstance(value, list) or not options else options[0]
            self._choose(config, file, index, {" ".join([*keywords, f"/{full}"]): chosen or None})

    def _keyword(self, where: str, key: str, word: str) -> list[str]:
        if word not in KEYWORDS:
            self._add(UserError(f"{where}: defaults: {key!r}: unknown keyword {word!r}", did_you_mean(word, KEYWORDS)))
        return nearest(word, KEYWORDS)

    def _group(self, where: str, key: str, group: str, parent: str, *, optional: bool) -> str | None:
        """The group, the nearest one where there is none of this name, None where no name is near."""
        known = self.folders.groups
        if group in known or optional:
            return group
        tail = group.removeprefix(f"{parent}/")
        if tail in known:
            hint, near = f"did you mean /{tail}? (/ starts at the top)", [tail]
        else:
            hint, near = did_you_mean(tail, known, "/"), nearest(tail, known)
        self._add(UserError(f"{where}: defaults: {key}: there is no group {group!r}", hint))
        return next(iter(near), None)

    def _option(self, where: str, group: str, option: str) -> list[str]:
        """The option, or the nearest one; nothing where no name is near."""
        if self.folders.find(f"{group}/{option}") is not None:
            return [option]
        valid = self.folders.options(group)
        cause = f"{where}: {group}: there is no option {option!r}"
        self._add(UserError(cause, did_you_mean(option, valid, f"{group}: ")))
        if not nearest(option, valid):
            self.doubtful.add(group)
            self.incomplete = True
        return nearest(option, valid)

    def _config_entry(
        self, config: str, file: YamlFile, index: int, entry: str, parent: str, where: str, above: tuple[str, ...]
    ) -> None:
        name = entry.partition("@")[0]
        if name == "_self_" or "${" in entry or name.lstrip("/").startswith("hydra/"):
            return
        target = name[1:] if name.startswith("/") else f"{parent}/{name}".lstrip("/")
        if target in above:
            self._fault(config, index, where, f"defaults: {entry} leads back to this file", "remove one of the two")
        elif self.folders.find(target) is None:
            valid = ["_self_", *self.folders.options(target.rpartition("/")[0])]
            self._fault(config, index, where, f"defaults: there is no file {target}.yaml", did_you_mean(name, valid))
        else:
            self._visit(target, above)

    def _add(self, error: UserError) -> None:
        if str(error) not in map(str, self.mistakes):
            self.mistakes.append(error)

    def _fault(self, config: str, index: int, where: str, fault: str, remedy: str) -> None:
        self._add(UserError(f"{where}: {fault}", remedy))
        self._drop(config, index)

    def _drop(self, config: str, index: int) -> None:
        path = self.folders.find(config)
        if path is not None:
            self._choose(config, read_yaml(path), index, None)
            self.incomplete = True

    def _choose(self, config: str, file: YamlFile, index: int, entry: dict[str, Any] | None) -> None:
        entries = list(self._content(config, file).get("defaults", []))
        entries[index] = entry
        self._replace(config, file, {"defaults": entries})

    def _content(self, config: str, file: YamlFile) -> dict[str, Any]:
        return self.repaired[config][1] if config in self.repaired else file.content

    def _replace(self, config: str, file: YamlFile, change: dict[str, Any]) -> None:
        package = self.repaired[config][0] if config in self.repaired else file.package or ""
        content = {key: value for key, value in self._content(config, file).items() if key != "defaults"}
        self.repaired[config] = (package, change | content)
