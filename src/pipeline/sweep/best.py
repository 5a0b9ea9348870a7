"""The settings of a trial as an experiment of their own: groups chosen, and every value in which they differ."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.config.compose import Composition, compose
from pipeline.config.defaults import Folders
from pipeline.config.yaml_files import read_yaml
from pipeline.sweep.parameters import Scalar, override_of

if TYPE_CHECKING:
    from pipeline.sweep.run import Plan

EXPERIMENT = "experiment"
# Where a run is written, how it is started, what the program fills in.
LEFT_OUT = ("output", "cache", "trust", "resume", "launch", "tracking", "derived", "planning", "plan")


def write_best(plan: Plan, values: Mapping[str, Scalar], path: Path, *, said: str) -> str:
    """Write an experiment that trains with these drawn values; the command that does. ``said``: what it reached."""
    main, *others = plan.composed.folders
    drawn = [override_of(plan.space.named(name), value) for name, value in values.items()]
    found = compose("train", [*plan.shared, *drawn], config_dirs=others, conf=main)
    chosen = groups_of(found, main)
    plain = compose("train", [f"{group}={option}" for group, option in chosen.items()], config_dirs=others, conf=main)
    assert found.tree is not None and plain.tree is not None
    own = _differences(plain.tree, {key: value for key, value in found.tree.items() if key not in LEFT_OUT})
    written = {group: option for group, option in chosen.items() if group not in LEFT_OUT}
    defaults: list[Any] = [{f"override /{group}": option} for group, option in written.items()]
    if found.tree.get("planning") is not None:
        defaults.append({"override /planning": "nnunet"})
    given = [f"--config-dir {shlex.quote(str(folder))}" for folder in (path.parent.parent, *others)]
    command = f"python -m pipeline train {' '.join(given[:1])} {EXPERIMENT}={path.stem}"
    header = [
        "# @package _global_",
        f"# {said}:  {command}",
        "# The score chose these settings and so flatters them: see optimism in report.json beside.",
    ]
    body = yaml.safe_dump({"defaults": defaults, **own}, sort_keys=False, allow_unicode=True, default_flow_style=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(header) + "\n" + body, encoding="utf-8")
    return command


def groups_of(found: Composition, main: Path) -> dict[str, str]:
    """The option that each group of the training took."""
    primary = Folders((main,)).find("train")
    assert primary is not None
    entries = read_yaml(primary).content["defaults"]
    groups = [str(key).split()[-1] for entry in entries if isinstance(entry, dict) for key in entry]
    chosen: dict[str, str] = {}
    for _, file in found.layers:
        for folder in found.folders.paths:
            if file.path.is_relative_to(folder):
                group, _, option = str(file.path.relative_to(folder).with_suffix("")).rpartition("/")
                if group in groups and group != EXPERIMENT:
                    chosen[group] = option  # of a file that builds on another of its group the outer comes last
                break
    return chosen


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be set beside ``before`` to have ``now``."""
    found: dict[str, Any] = {}
    for key, value in now.items():
        if key in before and before[key] == value and type(before[key]) is type(value):
            continue
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            inner = _differences(before[key], value)
            found |= {key: inner} if inner else {}
        else:
            found[key] = value
    return found
