"""A search space as YAML has it, read into parameters; every mistake of its form at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.nearest import did_you_mean
from pipeline.errors import UserError
from pipeline.sweep.parameters import Choice, Number, Parameter, Scalar, is_active, is_among

KINDS = ("float", "int", "choice")
WORDS = {"float": ("log", "step", "when"), "int": ("log", "step", "when"), "choice": ("when",)}
EXAMPLE = "write one of {float: [1.0e-4, 1.0e-2], log: true}, {int: [8, 32], step: 8}, {choice: [unet, segresnet]}"
MOST_POINTS = 1_000_000  # of a grid


@dataclass(frozen=True)
class Space:
    """Parameters, those that others depend on first."""

    parameters: tuple[Parameter, ...]

    def draw(self, trial: Any) -> dict[str, Scalar]:
        """Values by name that the study suggests to an Optuna trial; those drawn before stay what they were."""
        values: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if is_active(parameter, values):
                values[parameter.name] = parameter.draw(trial)
        return values

    def named(self, name: str) -> Parameter:
        """The parameter of this name."""
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def grid(self, points: int) -> list[dict[str, Scalar]]:
        """Every combination; ``points``: values of a number that has no step."""
        found: list[dict[str, Scalar]] = [{}]
        for parameter in self.parameters:
            values = parameter.points(points)
            found = [
                {**before, parameter.name: value} if is_active(parameter, before) else before
                for before in found
                for value in (values if is_active(parameter, before) else [None])
            ]
            if len(found) > MOST_POINTS:
                raise UserError(f"sweep.sampler=grid: more than {MOST_POINTS} combinations", "use sweep.sampler=tpe")
        return found

    def covering(self) -> Iterator[dict[str, Scalar]]:
        """Few assignments in which every parameter takes each of its ends (choices: each option) at least once."""
        left = [(parameter, end) for parameter in self.parameters for end in parameter.ends]
        while left:
            wanted, end = left[0]
            forced = self._forced(wanted) | {wanted.name: end}
            values: dict[str, Scalar] = {}
            for parameter in self.parameters:
                if not is_active(parameter, values):
                    continue
                open_ends = [e for p, e in left if p is parameter]
                values[parameter.name] = forced.get(parameter.name, [*open_ends, parameter.ends[0]][0])
            left = [(p, e) for p, e in left if p.name not in values or not is_among(values[p.name], (e,))]
            yield values

    def _forced(self, parameter: Parameter) -> dict[str, Scalar]:
        """What others have to be for this parameter to be drawn."""
        forced: dict[str, Scalar] = {}
        for name, options in parameter.when.items():
            forced |= self._forced(self.named(name)) | {name: options[0]}
        return forced


def read_space(content: Any) -> Space:
    """Parameters of a mapping; raises UserErrors with everything that is wrong with its form."""
    from pipeline.config.compose import ConfigurationMistakes

    if not isinstance(content, dict) or not content:
        raise UserError(
            "sweep.space: says nothing to draw",
            "name a file of conf/space: sweep.space=lr",
            "or give a mapping: sweep.space={optimizer.lr: {float: [1.0e-4, 1.0e-2], log: true}}",
        )
    reading = _Reading()
    for key, value in content.items():
        reading.key(str(key), value)
    parameters = reading.ordered()
    if reading.mistakes:
        raise ConfigurationMistakes(reading.mistakes)
    return Space(tuple(parameters))


class _Reading:
    def __init__(self) -> None:
        self.mistakes: list[UserError] = []
        self.parameters: list[Parameter] = []

    def fault(self, key: str, fault: str, *remedies: str) -> None:
        self.mistakes.append(UserError(f"sweep.space: {key}: {fault}", *remedies))

    def key(self, key: str, value: Any) -> None:
        several = value if isinstance(value, list) else [value]
        made = [parameter for one in several if (parameter := self._parameter(key, one)) is not None]
        if isinstance(value, list):
            made = [replace(parameter, name=_name(parameter)) for parameter in made]
            for one, other in itertools.combinations(made, 2):
                if not _apart(one, other):
                    self.fault(key, "two of its ranges hold at once", "give each a when: that excludes the other")
        self.parameters += made

    def _parameter(self, key: str, value: Any) -> Parameter | None:
        if not isinstance(value, dict):
            self.fault(key, f"{value!r} is not what to draw from", EXAMPLE)
            return None
        kinds = [kind for kind in KINDS if kind in value]
        if len(kinds) != 1:
            unknown = [str(word) for word in value if word not in KINDS and word not in WORDS["float"]]
            hint = did_you_mean(unknown[0], KINDS) if unknown and not kinds else EXAMPLE
            self.fault(key, f"{'no kind' if not kinds else 'several kinds'} of values", hint)
            return None
        kind = kinds[0]
        before = len(self.mistakes)
        for word in value:
            if word != kind and word not in WORDS[kind]:
                self.fault(key, f"{kind} takes no {word!r}", did_you_mean(str(word), WORDS[kind]))
        when = self._when(key, value.get("when", {}))
        made = self._choice(key, value["choice"]) if kind == "choice" else self._number(key, kind, value)
        return None if made is None or len(self.mistakes) > before else replace(made, when=when, name=key)

    def _choice(self, key: str, options: Any) -> Choice | None:
        if not isinstance(options, list) or not options:
            self.fault(key, f"choice: {options!r} is not a list of options", "choice: [unet, segresnet]")
            return None
        labels = Choice(key, tuple(options)).labels
        if any(is_among(label, labels[:index]) for index, label in enumerate(labels)):
            self.fault(key, "an option stands there twice", "leave one out")
        if any(isinstance(option, float) and not math.isfinite(option) for option in options):
            self.fault(key, "an option is not finite", "write a number")
        return Choice(key, tuple(options))

    def _number(self, key: str, kind: str, value: Mapping[str, Any]) -> Number | None:
        whole, ends = kind == "int", value[kind]
        if not isinstance(ends, list) or len(ends) != 2 or not all(_is_number(end, whole) for end in ends):
            self.fault(
                key,
                f"{kind}: {ends!r} is not a list of two {'whole ' if whole else ''}numbers",
                f"{kind}: [LOW, HIGH]",
            )
            return None
        low, high = (end if whole else float(end) for end in ends)
        log, step = value.get("log", False), value.get("step")
        if low > high:
            self.fault(key, f"{kind}: [{low}, {high}]: the first is larger than the second", f"[{high}, {low}]")
        if not isinstance(log, bool):
            self.fault(key, f"log: {log!r} is neither true nor false")
        elif log and low <= 0:
            self.fault(key, f"log: true needs a lower end above 0, it is {low}")
        if step is not None and (not _is_number(step, whole) or step <= 0):
            self.fault(key, f"step: {step!r} is not a {'whole ' if whole else ''}number above 0")
        elif step is not None and log is True:
            self.fault(key, "step and log: true exclude each other", "leave one out")
        elif step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
            self.fault(key, f"from {low} to {high} is no multiple of step: {step}", "choose an end that a step meets")
        return Number(key, low, high, whole, log is True, step)

    def _when(self, key: str, when: Any) -> dict[str, tuple[Scalar, ...]]:
        if not isinstance(when, dict):
            self.fault(key, f"when: {when!r} is not a mapping", "when: {network: unet}")
            return {}
        return {str(name): tuple(options if isinstance(options, list) else [options]) for name, options in when.items()}

    def ordered(self) -> list[Parameter]:
        """Those that others depend on first; what is wrong with conditions is noted."""
        by_name = {parameter.name: parameter for parameter in self.parameters}
        choices = [name for name, parameter in by_name.items() if isinstance(parameter, Choice)]
        for parameter in self.parameters:
            for name, options in parameter.when.items():
                of = by_name.get(name)
                if not isinstance(of, Choice):
                    self.fault(parameter.key, f"when: {name}: is no choice of this space", did_you_mean(name, choices))
                    continue
                for option in options:
                    if not is_among(option, of.labels):
                        hint = did_you_mean(str(option), map(str, of.labels))
                        self.fault(parameter.key, f"when: {name}: {option!r} is not among its options", hint)
        order: list[Parameter] = []
        while left := [parameter for parameter in self.parameters if parameter not in order]:
            names = {parameter.name for parameter in order}
            ready = [p for p in left if all(name in names or name not in by_name for name in p.when)]
            if not ready:
                self.fault(left[0].key, "when: leads back to itself", "take one of the conditions out")
                break
            order += ready
        return order


def _is_number(value: Any, whole: bool) -> bool:
    wanted = int if whole else int | float
    return isinstance(value, wanted) and not isinstance(value, bool) and math.isfinite(value)


def _name(parameter: Parameter) -> str:
    conditions = [f"{name}={'|'.join(map(str, options))}" for name, options in parameter.when.items()]
    return f"{parameter.key} [{', '.join(conditions)}]"


def _apart(one: Parameter, other: Parameter) -> bool:
    """Whether no choice lets both be drawn."""
    return any(
        not any(is_among(option, other.when[name]) for option in options)
        for name, options in one.when.items()
        if name in other.when
    )
