"""Flags whose meaning is Hydra's own: --cfg, --info, --multirun and their like are handed to hydra.main."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.arguments import Arguments
from pipeline.conf_dir import conf_dir
from pipeline.config.compose import Composed, Composition, ConfigurationMistakes, compose
from pipeline.config.hydra_groups import VERSION_BASE, first_folder
from pipeline.errors import UserError

# Nothing of Hydra's own is written: no .hydra folder, no log file, no change of the working folder.
QUIET = ("hydra.output_subdir=null", "hydra.job.chdir=false", "hydra/job_logging=none")


def run_hydra(arguments: Arguments) -> int:
    """Let Hydra act on its flags; mistakes in the configuration are told our way first."""
    from pipeline.config.overrides import for_hydra, quoted

    overrides = [part for override in arguments.overrides for part in for_hydra(quoted(override))]
    if arguments.multirun:
        jobs = _jobs(overrides)
        first = [_validated(arguments, job) for job in jobs]  # all before any runs
        refuse_many_devices(first[0])
        if (
            len(jobs) > 1
            and len({c.tree.get("output") for c in first}) == 1
            and first[0].tree.get("output") is not None
        ):
            cause = f"output={first[0].tree['output']} names one folder for {len(jobs)} runs"
            raise UserError(cause, "hydra.sweep.dir=FOLDER names the folder of all")
    states: list[int] = []
    if arguments.multirun or "--hydra-help" in arguments.hydra_flags:
        _hand_over(arguments, overrides, states)
    else:
        composition = _refuse(arguments, overrides)
        if composition.pruned:
            _hand_over_pruned(arguments, overrides, states, composition)
        else:
            _hand_over(arguments, overrides, states)
    return max(states, default=0)


def _hand_over_pruned(
    arguments: Arguments, overrides: Sequence[str], states: list[int], composition: Composition
) -> None:
    """Hydra finds a plan of which a part gives way to the user's choices as our own composing sees it."""
    with first_folder(composition.pruned, composition.folders, arguments.config_name) as (folder,):
        paths = ",".join('"file://{}"'.format(str(path).replace('"', '\\"')) for path in composition.folders.paths)
        others = [override for override in overrides if not override.startswith("hydra.searchpath=")]
        changed = replace(arguments, config_path=folder, config_dirs=())
        _hand_over(changed, [*others, f"hydra.searchpath=[{paths}]"], states)


def _hand_over(arguments: Arguments, overrides: Sequence[str], states: list[int]) -> None:
    import hydra

    def job(_: Any) -> None:
        states.append(_run_job(arguments))

    kept = sys.argv
    sys.argv = [kept[0], *_flags(arguments), *(QUIET if arguments.multirun else ()), *overrides]
    folder = str(arguments.config_path or conf_dir().resolve())
    try:
        hydra.main(version_base=VERSION_BASE, config_path=folder, config_name=arguments.config_name)(job)()
    finally:
        sys.argv = kept


def _flags(arguments: Arguments) -> Iterator[str]:
    yield from arguments.hydra_flags
    for folder in arguments.config_dirs[:1]:
        yield from ("--config-dir", str(folder))
    if len(arguments.config_dirs) > 1:
        raise UserError("--config-dir is given twice", "hydra.searchpath=[file:///one,file:///two] adds several")


def _run_job(arguments: Arguments) -> int:
    """One job of a multirun, in its own output folder."""
    from hydra.core.hydra_config import HydraConfig

    from pipeline.cli import MISTAKE, report, run_command

    settings = HydraConfig.get()
    try:
        composed = _validated(arguments, list(settings.overrides.task), Path(settings.runtime.output_dir))
        return run_command(arguments.command, composed)
    except UserError as error:  # the other jobs of the sweep go on
        print(report(error), file=sys.stderr)
        return MISTAKE


def _validated(arguments: Arguments, overrides: Sequence[str], job_folder: Path | None = None) -> Composed:
    from pipeline.config.schema import COMMANDS
    from pipeline.config.validate import validate

    composition = compose(
        arguments.config_name, overrides, config_dirs=arguments.config_dirs, conf=arguments.config_path
    )
    return validate(composition, COMMANDS[arguments.command], job_folder=job_folder)


def _refuse(arguments: Arguments, overrides: Sequence[str]) -> Composition:
    """Raise what is wrong with the files and groups; values are Hydra's to show, wrong or not."""
    task = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
    composition = compose(
        arguments.config_name, task, config_dirs=arguments.config_dirs, conf=arguments.config_path, sweep=True
    )
    if composition.mistakes:
        raise ConfigurationMistakes(composition.mistakes)
    if "--resolve" in arguments.hydra_flags and composition.tree is not None:
        from pipeline.config.interpolation import InterpolationError, Keys, Resolver, dotted

        faults: list[UserError] = []

        def note(keys: Keys, fault: InterpolationError) -> None:
            faults.append(UserError(f"{dotted(keys)}: {fault.cause}", *fault.remedies))

        Resolver(composition.tree, derived=True, environment=False).resolve(note)
        if faults:
            raise ConfigurationMistakes(faults)
    return composition


def _jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a grid; overrides of Hydra itself are left out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    choices: list[list[str]] = []
    for text in overrides:
        if text.lstrip("+~").startswith("hydra"):
            continue
        values = [text]
        with contextlib.suppress(HydraException):  # compose tells what is wrong with it
            override = OverridesParser.create().parse_override(text)
            if override.is_sweep_override():
                values = []  # a glob or an interval: the sweeper's; judged when its runs start
                key = override.get_key_element()
                values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if values:
            choices.append(values)
    return [list(job) for job in itertools.product(*choices)]


def refuse_many_devices(composed: Composed) -> None:
    """Raise UserError where runs of a sweep would train on several devices.

    Lightning starts its further processes with the same command line, ``--multirun`` included: they would mix runs.
    """
    trainer = composed.tree.get("trainer")
    if not isinstance(trainer, dict):
        return
    devices, nodes, strategy = trainer.get("devices", 1), trainer.get("num_nodes", 1), trainer.get("strategy", "auto")
    many = (isinstance(devices, int) and devices > 1) or (isinstance(devices, list) and len(devices) > 1)
    if many or nodes != 1 or str(strategy).startswith(("ddp", "fsdp", "deepspeed")):
        raise UserError(
            f"--multirun with trainer.devices={devices} trainer.num_nodes={nodes} trainer.strategy={strategy}: "
            "the processes of one run would mix with those of another",
            "trainer.devices=1 trainer.strategy=auto, or start each run by a command of its own",
        )
