"""The command line: which command runs, with which configuration. Nothing heavy is imported before that is known."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from pipeline import __version__
from pipeline.arguments import Arguments, read_arguments
from pipeline.errors import UserError, UserErrors

MISTAKE = 2  # exit status of a user's mistake
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 after a user's mistake (no traceback), 130 after Ctrl-C."""
    if isinstance(sys.stdout, TextIOWrapper):  # names of files may be bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(report(error), file=sys.stderr)
        return MISTAKE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        full = UserError(
            f"{where}the disk is full ({error.strerror}). What was finished before is whole",
            "make room, then start again; a training goes on where it stopped: train resume=RUN_FOLDER",
        )
        print(report(full), file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def report(error: UserError) -> str:
    """What a user reads about a mistake: ``error: cause`` and indented remedies, for each of several."""
    errors = _flat(error)
    heading = [f"{error.cause}:"] if isinstance(error, UserErrors) and len(errors) > 1 else []
    lines = [line for e in errors for line in (f"error: {e.cause}", *(f"    {remedy}" for remedy in e.remedies))]
    return "\n".join([*heading, *lines])


def _flat(error: UserError) -> list[UserError]:
    if isinstance(error, UserErrors):
        return [inner for e in error.errors for inner in _flat(e)]
    return [error]


def _main(argv: list[str]) -> int:
    arguments = read_arguments(argv)
    if arguments.help:
        from pipeline.help import help_text

        print(help_text(arguments.config_dirs))
        return 0
    if arguments.version:
        print(f"pipeline {__version__}")
        return 0
    if arguments.hydra_flags:
        from pipeline.hydra_modes import run_hydra

        return run_hydra(arguments)
    return run_single(arguments)


def run_single(arguments: Arguments) -> int:
    """Compose, validate and run the command once."""
    from pipeline.config.compose import compose
    from pipeline.config.schema import COMMANDS
    from pipeline.config.validate import validate

    composition = compose(
        arguments.config_name, arguments.overrides, config_dirs=arguments.config_dirs, conf=arguments.config_path
    )
    return run_command(arguments.command, validate(composition, COMMANDS[arguments.command]))


def run_command(command: str, composed: object) -> int:
    """Hand a configuration to ``pipeline/commands/<command>.py`` (``import_.py`` for ``import``); its exit status."""
    from importlib import import_module
    from keyword import iskeyword

    module = f"{command}_" if iskeyword(command) else command
    status: int = import_module(f"pipeline.commands.{module}").run(composed)
    return status
