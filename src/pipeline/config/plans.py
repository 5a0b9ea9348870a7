"""What of experiments and plans gives way to a choice of the user, and composing with a plan made for this run."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.yaml_files import YamlFile, shown
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.config.compose import Composed

GROUP = "plan"
PLANNING = "planning"  # the section that is there where a plan is to be made
OWN = ("loss", "network", "optimizer", "transforms")  # groups whose options have keys of their own
OF_EXPERIMENTS = ("data", "loss", "network", "optimizer")  # the same; the grid an experiment chose is for its images
MADE = "made_for_this_run"
AXIS = {code: axis for axis, codes in enumerate(("RL", "AP", "SI")) for code in codes}  # of the letters of axcodes
PLAN_FILE = "plan.yaml"  # in the folder of a run


def left_beside_choices(
    files: Mapping[str, YamlFile], choices: Mapping[str, Sequence[str] | None]
) -> dict[str, dict[str, Any]]:
    """What holds of each experiment and plan of which a part gives way, because another option of a group was chosen.

    ``files``: all that a configuration is made of, by name. ``choices``: of the command line, by group; to a plan those
    of an experiment count too. Values meant for one network, optimizer, data set or list of transforms make no sense
    for another.
    """
    typed = {group: list(options or ()) for group, options in choices.items()}
    experiments: dict[str, list[str]] = {}
    for config, file in files.items():
        if config.startswith("experiment/"):
            experiments |= {group: [str(option)] for group, option in _overrides(file)}
    left = {}
    for config, file in files.items():
        if config.startswith(f"{GROUP}/"):
            groups, chosen = OWN, experiments | typed
        elif config.startswith("experiment/"):
            groups, chosen = OF_EXPERIMENTS, typed
        else:
            continue
        own = {group: [str(option)] for group, option in _overrides(file)}
        away = {group for group in groups if group in chosen and chosen[group] != own.get(group)}
        if away & file.content.keys():
            left[config] = {key: value for key, value in file.content.items() if key not in away}
    return left


def _overrides(file: YamlFile) -> Iterator[tuple[str, Any]]:
    """Group and option of each ``override`` in the defaults list of a file."""
    entries = file.content.get("defaults")
    for entry in entries if isinstance(entries, list) else ():
        for key, option in entry.items() if isinstance(entry, dict) else ():
            words = str(key).split()
            if "override" in words[:-1]:
                yield words[-1].lstrip("/"), option


def other_axes(plan: YamlFile, tree: Mapping[str, Any]) -> UserError | None:
    """What is wrong where ``tree`` has the axes of images in another order than the plan gives its sizes in.

    It may where other transforms were chosen than those of the plan. Directions along an axis do not matter.
    """
    planned, used = _axcodes(plan.content), _axcodes(tree)
    if not planned or not used or [AXIS.get(code) for code in planned] == [AXIS.get(code) for code in used]:
        return None
    own = plan.path.stem == MADE
    remedies = [f"turn them as planned: transforms.preprocessing.0.axcodes={planned}"]
    if not own:
        remedies.append("or plan for the axes as they are: python -m pipeline plan ... planning.short_axis=0")
    return UserError(
        f"{'the plan of this run' if own else shown(plan.path)} gives its sizes (patch, strides, kernels) along the "
        f"axes {planned}, and the transforms that were chosen turn images to {used}",
        *remedies,
    )


def _axcodes(config: Mapping[str, Any]) -> str:
    """The order of axes that preprocessing brings about, empty where it leaves them."""
    section = config.get("transforms")
    steps = section.get("preprocessing") if isinstance(section, Mapping) else None
    found = [step.get("axcodes") for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
    return next((code for code in found if isinstance(code, str)), "")


def refuse_two_plans(composed: Composed) -> None:
    """Raise UserError where a plan is named though one is to be made."""
    if composed.tree.get(PLANNING) and GROUP in composed.chosen:
        raise UserError(
            f"{GROUP}=NAME uses a plan, and {PLANNING} (which experiment=auto sets) makes another", "leave out one"
        )


def compose_with_plan(
    composed: Composed, text: str, model: type[BaseModel], *, deferred: Collection[str] = ()
) -> Composed:
    """The same command line again, with the plan of this text underneath experiment and overrides.

    ``deferred``: sections whose targets are not judged, because the plan does not have them yet.
    Raises ConfigurationMistakes where the overrides do not fit the plan.
    """
    from pipeline.config.compose import compose
    from pipeline.config.validate import validate

    main, *others = composed.folders
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, GROUP, f"{MADE}.yaml")
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        composition = compose(
            composed.command,
            [*composed.overrides, f"{GROUP}={MADE}"],
            config_dirs=[*others, Path(folder)],
            conf=main,
        )
        found = validate(composition, model, job_folder=composed.job_folder, deferred=deferred)
    return replace(found, overrides=composed.overrides, chosen=composed.chosen, folders=composed.folders)
