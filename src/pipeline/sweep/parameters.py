"""What a sweep may draw: numbers and choices, some only beside certain other choices."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Scalar = str | int | float | bool | None
Condition = Mapping[str, tuple[Scalar, ...]]  # choices by name, and with which of their options

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = ("true", "false", "null", "none", "nan", "inf", "yes", "no", "on", "off")  # text that would be read as others


@dataclass(frozen=True)
class Number:
    """A number between two ends, both included. ``log``: drawn evenly in its logarithm. ``step``: counted from low."""

    key: str  # of the configuration
    low: float
    high: float
    whole: bool
    log: bool = False
    step: float | None = None
    when: Condition = field(default_factory=dict)
    name: str = ""  # in the study; the key unless several stand for one key

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """The smallest and the largest value."""
        return (self.low, self.high) if self.low != self.high else (self.low,)

    def points(self, count: int) -> list[Scalar]:
        """The values of a grid: every step, or ``count`` between the ends."""
        if self.step is not None:
            steps = round((self.high - self.low) / self.step)
            values = [self.low + index * self.step for index in range(steps + 1)]
            return [int(value) if self.whole else round(value, 12) for value in values]
        if self.low == self.high:
            return [self.low]
        spread = np.geomspace if self.log else np.linspace
        found = [float(f"{value:.12g}") for value in spread(self.low, self.high, max(2, count))]
        if not self.whole:
            return [self.low, *found[1:-1], self.high]
        return list(dict.fromkeys(round(value) for value in found))

    def draw(self, trial: Any) -> Scalar:
        """What the study suggests to an Optuna trial."""
        step: Any = self.step
        if self.whole:
            drawn: int = trial.suggest_int(
                self.name, int(self.low), int(self.high), step=1 if step is None else int(step), log=self.log
            )
            return drawn
        number: float = trial.suggest_float(self.name, self.low, self.high, step=step, log=self.log)
        return number


@dataclass(frozen=True)
class Choice:
    """One of several options: of a group of the configuration, or values of a key."""

    key: str
    options: tuple[Any, ...]
    when: Condition = field(default_factory=dict)
    name: str = ""

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """What stands for each option in the study: itself, or a list or mapping as text."""
        return tuple(text_of(option) if isinstance(option, list | dict) else option for option in self.options)

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """All of them."""
        return self.labels

    def points(self, count: int) -> list[Scalar]:
        """All of them."""
        return list(self.labels)

    def draw(self, trial: Any) -> Scalar:
        """What the study suggests to an Optuna trial."""
        drawn: Scalar = trial.suggest_categorical(self.name, self.labels)
        return drawn


Parameter = Number | Choice


def is_active(parameter: Parameter, values: Mapping[str, Scalar]) -> bool:
    """Whether the parameter is drawn beside these values, by name."""
    return all(name in values and is_among(values[name], options) for name, options in parameter.when.items())


def is_among(value: Any, options: Sequence[Any]) -> bool:
    """Whether a value is one of the options; ``true`` is not 1."""
    return any(type(value) is type(option) and value == option for option in options)


def override_of(parameter: Parameter, value: Scalar) -> str:
    """``key=value`` as the command line takes it."""
    if isinstance(parameter, Choice):
        index = next(index for index, label in enumerate(parameter.labels) if is_among(label, (value,)))
        return f"{parameter.key}={text_of(parameter.options[index])}"
    return f"{parameter.key}={text_of(value)}"


def text_of(value: Any) -> str:
    """A value in the grammar of the command line, read back as the same value of the same type."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {text_of(inner)}" for key, inner in value.items()) + "}"
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return str(value)
    quoted = str(value).replace('"', '\\"')
    return f'"{quoted}"'


def short(values: Mapping[str, Scalar]) -> str:
    """Drawn values in one line: the last part of each key, four digits that count."""
    shown = []
    for name, value in values.items():
        key = name.partition(" ")[0]
        last = key.rpartition(".")[2]
        twice = sum(other.partition(" ")[0].rpartition(".")[2] == last for other in values) > 1
        text = f"{value:.4g}" if isinstance(value, float) else text_of(value)
        shown.append(f"{key if twice else last}={text}")
    return " ".join(shown)
