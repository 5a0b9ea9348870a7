"""Search spaces: their form, what is drawn from them, and how values are written."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from pipeline.config.overrides import Choice as GroupChoice
from pipeline.config.overrides import Value, parse
from pipeline.errors import UserError, UserErrors
from pipeline.sweep.parameters import Choice, Number, is_active, override_of, short, text_of
from pipeline.sweep.space import read_space

CONDITIONAL = {
    "network.width": {"int": [8, 32], "step": 8, "when": {"network": "unet"}},
    "network": {"choice": ["unet", "segresnet"]},
    "optimizer.lr": {"float": [1e-4, 1e-2], "log": True},
}


def faults(content: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_space(content)
    return str(caught.value)


def test_what_others_depend_on_comes_first() -> None:
    assert [parameter.name for parameter in read_space(CONDITIONAL).parameters] == [
        "network",
        "optimizer.lr",
        "network.width",
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5, "is not what to draw from"),
        ({"flaot": [1, 2]}, "did you mean float?"),
        ({"float": [1, 2], "int": [1, 2]}, "several kinds"),
        ({"float": [2, 1]}, "the first is larger"),
        ({"float": [1, "a"]}, "is not a list of two numbers"),
        ({"float": [1, float("nan")]}, "is not a list of two numbers"),
        ({"int": [1, 2.5]}, "two whole numbers"),
        ({"int": [True, 3]}, "two whole numbers"),
        ({"float": [0, 1], "log": True}, "above 0"),
        ({"float": [1, 2], "log": True, "step": 0.5}, "exclude each other"),
        ({"int": [8, 31], "step": 8}, "no multiple of step"),
        ({"int": [8, 32], "step": 0}, "above 0"),
        ({"float": [1, 2], "lgo": True}, "did you mean log?"),
        ({"choice": []}, "is not a list of options"),
        ({"choice": ["a", "a"]}, "twice"),
        ({"choice": ["a"], "log": True}, "choice takes no 'log'"),
        ({"float": [1, 2], "when": {"netwrok": "unet"}}, "no choice of this space"),
        ({"float": [1, 2], "when": "unet"}, "is not a mapping"),
    ],
)
def test_a_mistake_is_told(value: Any, said: str) -> None:
    assert said in faults({"a.key": value})


def test_all_mistakes_of_a_space_at_once() -> None:
    with pytest.raises(UserErrors) as caught:
        read_space(
            {
                "a": {"float": [2, 1]},
                "b": {"choice": ["x", "y"], "when": {"c": "z"}},
                "c": {"choice": ["w"]},
                "d": {"int": [1, 2], "when": {"a": 1}},
            }
        )
    assert len(caught.value.errors) == 3
    assert "'z' is not among its options" in str(caught.value)


def test_conditions_that_lead_back() -> None:
    space = {"a": {"choice": [1, 2], "when": {"b": 1}}, "b": {"choice": [1, 2], "when": {"a": 1}}}
    assert "leads back to itself" in faults(space)


def test_nothing_to_draw() -> None:
    assert "sweep.space=lr" in faults(None)
    assert "says nothing" in faults({})


def test_several_ranges_of_one_key() -> None:
    wide = {"float": [1e-3, 1e-1], "log": True, "when": {"network": "unet"}}
    narrow = {"float": [1e-5, 1e-3], "log": True, "when": {"network": "segresnet"}}
    space = read_space({"network": {"choice": ["unet", "segresnet"]}, "optimizer.lr": [wide, narrow]})
    names = [parameter.name for parameter in space.parameters]
    assert names == ["network", "optimizer.lr [network=unet]", "optimizer.lr [network=segresnet]"]
    assert override_of(space.parameters[1], 0.01) == "optimizer.lr=0.01"
    assert "two of its ranges" in faults({"network": {"choice": ["unet", "cnn"]}, "optimizer.lr": [wide, wide]})


def test_grid_of_conditional_settings() -> None:
    grid = read_space(CONDITIONAL).grid(3)
    assert len(grid) == 3 * (4 + 1)
    assert grid[0] == {"network": "unet", "optimizer.lr": 1e-4, "network.width": 8}
    assert [point["optimizer.lr"] for point in grid[::4][:3]] == pytest.approx([1e-4, 1e-3, 1e-2])
    assert all(("network.width" in point) == (point["network"] == "unet") for point in grid)


def test_points_of_numbers() -> None:
    assert Number("a", 0.0, 1.0, whole=False, step=0.25).points(2) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Number("a", 1, 100, whole=True, log=True).points(3) == [1, 10, 100]
    assert Number("a", 1, 3, whole=True).points(9) == [1, 2, 3]


def test_covering_reaches_every_end() -> None:
    space = read_space(CONDITIONAL | {"network.convs": {"choice": [1, 2, 3], "when": {"network": ["unet"]}}})
    seen = {(name, value) for values in space.covering() for name, value in values.items()}
    for parameter in space.parameters:
        assert {(parameter.name, end) for end in parameter.ends} <= seen
    for values in space.covering():
        for parameter in space.parameters:
            assert (parameter.name in values) == is_active(parameter, values)
    assert len(list(space.covering())) <= 5


def test_drawing_keeps_what_was_drawn() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    space, trial = read_space(CONDITIONAL), study.ask()
    values = space.draw(trial)
    study.sampler = optuna.samplers.RandomSampler(seed=2)
    assert space.draw(optuna.Trial(study, trial._trial_id)) == values


@pytest.mark.parametrize(
    "value",
    [1, -3, 0.1, 1e-30, True, False, None, "unet", "true", "1e5", "a b", "it's", 'a "b"', [16, 24.5, "x"], {"a": [1]}],
)
def test_a_value_is_read_back_from_the_command_line(value: Any) -> None:
    (item,), faults = parse([f"some.key={text_of(value)}"])
    assert not faults
    assert isinstance(item, Value | GroupChoice)
    assert isinstance(item, Value)
    assert item.value == value
    assert type(item.value) is type(value)


def test_lists_are_options_by_their_text() -> None:
    choice = Choice("sampling.patch_size", ([16, 16], [32, 32]))
    assert choice.labels == ("[16,16]", "[32,32]")
    assert override_of(choice, "[32,32]") == "sampling.patch_size=[32,32]"


def test_short_names_settings_by_their_last_part() -> None:
    assert short({"optimizer.lr": 0.00123456, "network": "unet"}) == "lr=0.001235 network=unet"
    assert short({"a.width": 1, "b.width": 2}) == "a.width=1 b.width=2"
