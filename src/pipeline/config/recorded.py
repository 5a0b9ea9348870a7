"""The configuration that a run recorded when it began, and in what another differs from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.conf_dir import conf_dir
from pipeline.config.yaml_files import MOST_BYTES, refuse_large, shown
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.config.compose import Composed

EXPERIMENT_FILE = "experiment.yaml"  # in the folder of a run: composed, before the data determined the rest
FREE_GROUPS = frozenset({"launch", "tracking"})  # groups whose options choose no result
MOST_RECORDED_BYTES = 16 * MOST_BYTES

# Keys that change no result, or (folds.run) only how many there are.
FREE = (
    "output",
    "cache",
    "trust",
    "resume",
    "checkpoint",
    "launch",
    "store",
    "tracking",
    "planning",
    "plan",
    "derived",
    "folds.run",
    "trainer.workers",
    "trainer.max_time",
    "engine.trial_seconds",
    "engine.trial_steps",
    "engine.least_gain",
    "evaluation.figures",
    "check.contact_sheet_cases",
)


def record(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a composed tree, references unresolved; a plan that was made is part of it, and is not made again."""
    partial = partial_of(path)
    made = {**tree, "planning": None, "plan": None}
    partial.write_text(yaml.safe_dump(made, sort_keys=False, allow_unicode=True), encoding="utf-8")
    partial.replace(path)


def partial_of(path: Path) -> Path:
    """The name under which a file is written before it takes its own."""
    return path.with_name(f".{path.name}.partial")


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """A mapping that ``yaml.safe_dump`` wrote; raises UserError for anything else, also for what is too large."""
    try:
        size = path.stat().st_size
        if size > MOST_RECORDED_BYTES:
            raise UserError(f"{path}: {size} bytes; the limit is {MOST_RECORDED_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        refuse_large(text, str(path))
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing, this is not the folder of a run") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a configuration")
    return content


def recorded_configuration(
    folder: Path, model: type[BaseModel], *, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> Composed:
    """What the run in ``folder`` recorded, with ``values`` by dotted key, then those of the command line, set anew.

    Raises UserError for a folder without a record, and ConfigurationMistakes for a record that does not fit.
    """
    from omegaconf import OmegaConf

    from pipeline.config.compose import Composition
    from pipeline.config.defaults import Folders
    from pipeline.config.hydra_groups import to_plain
    from pipeline.config.overrides import Value, parse
    from pipeline.config.validate import validate

    path = folder / EXPERIMENT_FILE
    if not path.is_file():
        raise UserError(
            f"{folder}: not the folder of a run that can be repeated, it has no {EXPERIMENT_FILE}",
            "a run's folder is named in the last lines of its training",
        )
    plain = read_plain_yaml(path)
    for name, value in (values or {}).items():
        _set(plain, name, value)
    tree = OmegaConf.create(plain)
    parsed, mistakes = parse(overrides)
    given = [item for item in parsed if isinstance(item, Value)]
    mistakes += [mistake for value in given if (mistake := value.apply(tree))]
    plain = to_plain(tree)
    composition = Composition(
        command=EXPERIMENT_FILE,
        folders=Folders((conf_dir().resolve(),)),
        tree=plain,
        layers=[],
        values=tuple(given),
        overrides=tuple(overrides),
        mistakes=tuple(mistakes),
        doubtful=frozenset(),
        incomplete=False,
        chosen=frozenset(),
        pruned={},
    )
    return validate(composition, model)


def _set(tree: dict[str, Any], name: str, value: Any) -> None:
    *above, last = name.split(".")
    node = tree
    for key in above:
        node = node[key]
    node[last] = value


def changed_keys(recorded: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys of which the values differ, with both; those that are ``FREE`` are left out."""
    found = {}
    for name, before, now in _differences("", dict(recorded), dict(tree)):
        if not any(name == free or name.startswith(f"{free}.") for free in FREE):
            found[name] = (before, now)
    return found


def _differences(name: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(inner, before.get(key, _ABSENT), now.get(key, _ABSENT))
    elif type(before) is not type(now) or before != now:
        yield name, before, now


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def allowed(name: str, allow: Sequence[str]) -> bool:
    """Whether ``resume.allow`` names this key or a section that holds it."""
    return any(name == given or name.startswith(f"{given}.") for given in allow)


def refuse_changes(folder: Path, changes: Mapping[str, tuple[Any, Any]], allow: Sequence[str]) -> None:
    """Raise UserError where a setting differs from that of the run, and is not allowed to."""
    refused = {name: values for name, values in changes.items() if not allowed(name, allow)}
    if refused:
        listed = [f"{name}: {before!r} then, {now!r} now" for name, (before, now) in list(refused.items())[:20]]
        raise UserError(
            f"resume={shown(folder)}: {len(refused)} setting(s) differ from those of the run",
            *listed,
            *([f"... and {len(refused) - 20} more"] if len(refused) > 20 else []),
            f"resume={shown(folder)} alone goes on with the settings of the run",
            f"resume.allow=[{','.join(list(refused)[:20])}] goes on with the new values",
        )
