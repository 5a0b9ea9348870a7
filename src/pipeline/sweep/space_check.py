"""A search space against the configuration it is drawn for: each parameter at each of its ends, before any trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.compose import Composed, ConfigurationMistakes, compose
from pipeline.config.defaults import Folders
from pipeline.config.nearest import did_you_mean
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.config.yaml_files import read_yaml
from pipeline.errors import UserError
from pipeline.sweep.parameters import override_of
from pipeline.sweep.space import Space, read_space

if TYPE_CHECKING:
    from pipeline.sweep.parameters import Scalar

GROUP = "space"  # the folder of files with spaces
# Whose values the sweep chooses, or without which trials could not be told apart.
RESERVED = (
    "output",
    "resume",
    "launch",
    "tracking",
    "cache",
    "trust",
    "folds",
    "seed",
    "name",
    "task",
    "data",
    "sweep",
)


def space_of(asked: str | dict[str, Any] | None, folders: Sequence[Path]) -> Space:
    """The space that ``sweep.space`` means: a mapping, or the name of a file in a folder called space. UserError."""
    if not isinstance(asked, str):
        return read_space(asked)
    searched = Folders(tuple(folders))
    path = searched.find(f"{GROUP}/{asked}")
    if path is None:
        raise UserError(
            f"sweep.space={asked}: there is no file {GROUP}/{asked}.yaml", did_you_mean(asked, searched.options(GROUP))
        )
    return read_space(read_yaml(path).content)


def require_fits(space: Space, composed: Composed, overrides: Sequence[str]) -> None:
    """Raise ConfigurationMistakes with every value of the space that the training would not take.

    ``overrides``: those of the user that all trials share.
    """
    found: dict[str, UserError] = {}
    for parameter in space.parameters:
        section = parameter.key.lstrip("+~").partition(".")[0]
        if section in RESERVED:
            error = UserError(
                f"sweep.space: {parameter.key}: {section} is the same for all trials", "take it out of the space"
            )
            found[str(error)] = error
    if found:
        raise ConfigurationMistakes(list(found.values()))
    for values in space.covering():
        try:
            compose_trial(space, values, composed, overrides)
        except ConfigurationMistakes as mistakes:
            for error in mistakes.errors:
                said = UserError(error.cause.replace("(command line)", "(sweep.space)"), *error.remedies)
                found.setdefault(str(said), said)
    if found:
        raise ConfigurationMistakes(list(found.values()))


def compose_trial(space: Space, values: dict[str, Scalar], composed: Composed, overrides: Sequence[str]) -> Composed:
    """The configuration of a trial. Raises ConfigurationMistakes."""
    main, *others = composed.folders
    drawn = [override_of(space.named(name), value) for name, value in values.items()]
    composition = compose("train", [*overrides, *drawn], config_dirs=others, conf=main)
    return validate(composition, TrainConfig)
