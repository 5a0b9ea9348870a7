"""Command, flags and overrides, told apart without importing anything heavy."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pipeline.conf_dir import conf_dir, primary_configs
from pipeline.errors import UserError

DEFAULT_COMMAND = "train"


@dataclass(frozen=True)
class Arguments:
    """What the command line says. ``hydra_flags`` are those that Hydra itself must act on."""

    command: str
    config_name: str
    overrides: tuple[str, ...]
    config_dirs: tuple[Path, ...]
    config_path: Path | None
    hydra_flags: tuple[str, ...]
    multirun: bool
    help: bool
    version: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message}", "python -m pipeline --help lists what may stand here")


def _parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for short, name in (("-h", "help"), ("-m", "multirun"), ("-r", "run"), ("-sc", "shell-completion")):
        parser.add_argument(f"--{name}", short, action="store_true")
    for name in ("version", "hydra-help", "resolve", "dry-run"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--package", "-p")
    info = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=info)
    parser.add_argument("--config-path", "-cp", type=Path)
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[])
    parser.add_argument("words", nargs="*")
    return parser


def read_arguments(argv: Sequence[str]) -> Arguments:
    """Tell apart the command, the flags and the overrides. Raises UserError for an unknown flag or command."""
    argv = _without_greedy_info(argv)
    parser = _parser()
    given, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise _unknown_flag(unknown[0], parser)
    flags: list[str] = []
    for name in ("cfg", "package", "info"):
        if (value := getattr(given, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", value]
    switches = ("multirun", "shell_completion", "hydra_help", "resolve")
    flags += [f"--{name.replace('_', '-')}" for name in switches if getattr(given, name)]
    commands = primary_configs()
    overrides = [word for word in given.words if "=" in word or word.startswith("~")]
    words = [word for word in given.words if word not in overrides]
    overrides += ["launch.dry_run=true"] if given.dry_run else []
    if given.help or given.version:
        words = words[:1] if words[:1] and words[0] in commands else []
    command = words[0] if words else DEFAULT_COMMAND
    if command not in commands:
        raise _unknown_word(command, commands)
    if len(words) > 1:
        raise UserError(
            f"command line: {words[1]!r} is not of the form key=value", f"{words[1]}=VALUE gives it a value"
        )
    return Arguments(
        command=command,
        config_name=(given.config_name or command).removesuffix(".yaml"),
        overrides=tuple(overrides),
        config_dirs=tuple(folder.absolute() for folder in given.config_dir),
        config_path=given.config_path.absolute() if given.config_path else None,
        hydra_flags=tuple(flags),
        multirun=given.multirun,
        help=given.help,
        version=given.version,
    )


def _without_greedy_info(argv: Sequence[str]) -> list[str]:
    """``--info`` takes an optional word: say ``all`` where an override or a command follows instead of one."""
    words = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
    out: list[str] = []
    for index, word in enumerate(argv):
        following = argv[index + 1] if index + 1 < len(argv) else ""
        out.append("--info=all" if word in ("--info", "-i") and following not in words else word)
    return out


def _unknown_flag(flag: str, parser: argparse.ArgumentParser) -> UserError:
    name = flag.partition("=")[0]
    if "=" in flag and name.lstrip("-"):
        return UserError(
            f"command line: unknown flag {flag}", f"a key of the configuration is written {flag.lstrip('-')}"
        )
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    near = difflib.get_close_matches(name, options, 1)
    return UserError(f"command line: unknown flag {flag}", f"did you mean {near[0]}?" if near else "see --help")


def _unknown_word(word: str, commands: dict[str, Path]) -> UserError:
    near = difflib.get_close_matches(word, commands, 1)
    cause = f"command line: {word!r} is neither a command nor of the form key=value"
    if near:
        return UserError(cause, f"did you mean {near[0]}?")
    if (conf_dir() / "experiment" / f"{word}.yaml").is_file():
        return UserError(cause, f"did you mean experiment={word}?")
    return UserError(cause, f"commands: {', '.join(commands)}")
