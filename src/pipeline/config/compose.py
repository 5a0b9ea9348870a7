"""From a command and its overrides to one configuration tree, with every mistake on the way noted.

Hydra composes the groups. Overrides of values are applied one by one afterwards, so that the first wrong one does not
hide the others; ``validate`` judges the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.conf_dir import conf_dir
from pipeline.config.defaults import Folders, Walk, option_names
from pipeline.config.hydra_groups import Layers, compose_groups, search_path, to_plain
from pipeline.config.interpolation import Keys
from pipeline.config.nearest import did_you_mean, nearest
from pipeline.config.overrides import Choice, Value, parse
from pipeline.config.plans import other_axes
from pipeline.config.yaml_files import shown
from pipeline.errors import UserError, UserErrors

if TYPE_CHECKING:
    from pydantic import BaseModel


class ConfigurationMistakes(UserErrors):
    """All that is wrong with a configuration."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__(errors)
        self.cause += " in the configuration"


@dataclass(frozen=True)
class Composition:
    """A composed tree, plain and with its interpolations unresolved, and where each value came from.

    ``tree`` is None where nothing could be composed. ``layers`` are the files in the order in which Hydra merged them,
    each with the keys of its package. ``doubtful`` are groups whose option does not exist, so that nothing can be said
    about their keys; ``incomplete`` says that keys may be absent because a faulty file was left out. ``chosen`` are the
    groups of which the command line names an option, ``pruned`` the plans of which only a part was merged: their
    package and what is left (see ``plans.left_beside_choices``).
    """

    command: str
    folders: Folders
    tree: dict[str, Any] | None
    layers: Layers
    values: tuple[Value, ...]
    overrides: tuple[str, ...]
    mistakes: tuple[UserError, ...]
    doubtful: frozenset[str]
    incomplete: bool
    chosen: frozenset[str]
    pruned: Mapping[str, tuple[str, dict[str, Any]]]

    def origin(self, keys: Keys) -> str:
        """Where these keys were last given: ``command line`` or ``conf/network/unet.yaml:7``."""
        for value in reversed(self.values):
            given = tuple(map(str, keys[: len(value.keys)]))
            if keys and given == value.keys:
                return "command line"
        for package, file in reversed(self.layers):
            if len(keys) > len(package) and tuple(map(str, keys[: len(package)])) == package:
                line = file.line(keys[len(package) :])
                if line is not None:
                    return f"{shown(file.path)}:{line}"
        whole = tuple(map(str, keys))
        if keys and any(value.keys[: len(keys)] == whole for value in self.values):
            return "command line"
        return self.origin(keys[:-1]) if keys else self.primary

    def raw_text(self, keys: Keys) -> str | None:
        """What the user typed as the value of these keys on the command line, None where it comes from a file."""
        for value in reversed(self.values):
            if tuple(map(str, keys)) == value.keys:
                return value.text
        return None

    @cached_property
    def primary(self) -> str:
        """The primary configuration's file, as shown to users."""
        path = self.folders.find(self.command)
        return shown(path) if path else f"{self.command}.yaml"


@dataclass(frozen=True)
class Composed:
    """A configuration without mistakes: what a command gets.

    ``model`` is the validated instance of the command's schema, with references among its own keys resolved and
    environment variables read. ``tree`` is plain data as composed, references unresolved, safe to store and log.
    ``trusted`` are the modules of ``trust=[...]``. ``job_folder`` is the folder of one job of a multirun. ``folders``
    were searched for configurations; ``chosen`` are the groups of which the command line names an option.
    """

    command: str
    model: BaseModel
    tree: dict[str, Any]
    overrides: tuple[str, ...]
    trusted: tuple[str, ...]
    job_folder: Path | None = None
    folders: tuple[Path, ...] = ()
    chosen: frozenset[str] = frozenset()


@dataclass
class _Request:
    """What the command line asks for, sorted."""

    folders: Folders
    choices: dict[str, tuple[Choice, list[str] | None]] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    mistakes: list[UserError] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)


def compose(
    command: str,
    overrides: Sequence[str] = (),
    *,
    config_dirs: Sequence[Path] = (),
    conf: Path | None = None,
    sweep: bool = False,
) -> Composition:
    """Compose the primary configuration ``command`` with Hydra overrides.

    ``config_dirs`` are searched after ``conf`` (the shipped folder unless given). With ``sweep`` an override that gives
    several values is left out. User mistakes are returned, except a primary configuration that does not exist or
    a folder that does not, which raise UserError.
    """
    main = (conf or conf_dir()).resolve()
    parsed, mistakes = parse(overrides, sweep=sweep)
    folders = Folders((main, *search_path(main, command, config_dirs, parsed)))
    if folders.find(command) is None:
        raise UserError(
            f"there is no configuration {command}.yaml in {', '.join(map(shown, folders.paths))}",
            did_you_mean(command, folders.options(".")),
        )
    request = _Request(folders, mistakes=mistakes)
    for item in parsed:
        _sort(item, request)

    walk = Walk(folders, {key: options for key, (_, options) in request.choices.items()})
    walk.run(command)
    for key, (choice, _) in list(request.choices.items()):
        if key not in walk.declared and not choice.text.startswith("+"):
            cause = f"{choice.text} (command line): {command} has no group {key!r}"
            request.mistakes.append(UserError(cause, did_you_mean(key, walk.declared)))
            del request.choices[key]
    request.mistakes.extend(walk.mistakes)

    tree, layers, refused = compose_groups(command, folders, walk, request.choices.values())
    request.mistakes.extend(refused)
    if tree is not None:
        request.mistakes.extend(mistake for value in request.values if (mistake := value.apply(tree)))
    plain = to_plain(tree) if tree is not None else None
    if plain is not None:
        request.mistakes.extend(mistake for plan in walk.plans if (mistake := other_axes(plan, plain)))
    return Composition(
        command,
        folders,
        plain,
        layers,
        tuple(request.values),
        tuple(overrides),
        tuple(request.mistakes),
        frozenset(walk.doubtful | request.doubtful),
        walk.incomplete or tree is None,
        frozenset(request.choices),
        {config: walk.repaired[config] for config in walk.pruned},
    )


def _sort(item: Choice | Value, request: _Request) -> None:
    """A value override whose key is a group chooses an option of it; check that the option exists."""
    folders = request.folders
    if isinstance(item, Value):
        name = ".".join(item.keys)
        if name.startswith("hydra."):
            if name != "hydra.searchpath":
                request.mistakes.append(
                    UserError(
                        f"{item.text_line} (command line): has no effect on a single run",
                        "output=FOLDER names the folder of a run",
                    )
                )
            return
        if name not in folders.groups or isinstance(item.value, dict):
            request.values.append(item)
            return
        item = Choice(name, item.value, item.text_line)
    group = item.group.partition("@")[0]
    if group.split("/")[0] == "hydra":
        return
    if group not in folders.groups:
        cause = f"{item.text} (command line): there is no group {group!r}"
        request.mistakes.append(UserError(cause, did_you_mean(group, folders.groups)))
        return
    options = option_names(item.option)
    valid = folders.options(group)
    for option in options or ():
        if option not in valid:
            cause = f"{item.text} (command line): {group} has no option {option!r}"
            request.mistakes.append(UserError(cause, did_you_mean(option, valid, f"{group}=")))
            if not nearest(option, valid):
                request.doubtful.add(group)
                return
    options = options and [nearest(option, valid)[0] for option in options]  # the checks go on with what was meant
    request.choices[item.group] = (item, options)
