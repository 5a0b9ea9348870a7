"""Search spaces: every shipped one fits the experiment it names; what is wrong with one is told at once."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.conf_dir import conf_dir
from pipeline.config.compose import Composed, ConfigurationMistakes, compose
from pipeline.config.schema import COMMANDS
from pipeline.config.validate import validate
from pipeline.config.yaml_files import read_yaml
from pipeline.sweep.space_check import require_fits, space_of

SHIPPED = sorted((conf_dir() / "space").glob("*.yaml"))


def composed(*overrides: str) -> Composed:
    return validate(compose("sweep", overrides), COMMANDS["sweep"])


def mistakes(space: dict[str, Any], *overrides: str) -> str:
    base = composed(*overrides)
    with pytest.raises(ConfigurationMistakes) as caught:
        require_fits(space_of(space, base.folders), base, overrides)
    return str(caught.value)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_space_fits_its_experiment(file: Any) -> None:
    words = (
        read_yaml(file).summary
        and next(line for line in read_yaml(file).header if "python -m pipeline sweep" in line)
        .partition("pipeline sweep")[2]
        .split()
    )
    assert f"sweep.space={file.stem}" in words
    base = composed(*words)
    shared = [word for word in words if not word.startswith("sweep")]
    require_fits(space_of(file.stem, base.folders), base, shared)


def test_a_space_on_the_command_line_takes_the_place_of_another() -> None:
    space = "sweep.space={optimizer.lr: {float: [1e-4, 1e-2], log: true}, network: {choice: [unet, segresnet]}}"
    tree = composed(space).tree["sweep"]["space"]
    assert tree == {
        "optimizer.lr": {"float": [1e-4, 1e-2], "log": True},
        "network": {"choice": ["unet", "segresnet"]},
    }


def test_values_that_the_training_does_not_take_are_told_together() -> None:
    said = mistakes(
        {
            "optimizer.lrr": {"float": [0.1, 0.2]},
            "sampling.batch_size": {"int": [0, 4]},
            "network": {"choice": ["unet", "segresnett"]},
            "network.dropout": {"float": [0.0, 0.5], "when": {"network": "unet"}},
        }
    )
    assert "optimizer.lrr (sweep.space)" in said
    assert "did you mean lr?" in said
    assert "sampling.batch_size (sweep.space)" in said
    assert "did you mean network=segresnet?" in said
    assert "dropout" not in said


def test_a_key_of_one_network_needs_its_condition() -> None:
    space = {"network": {"choice": ["unet", "segresnet"]}, "network.decoder_convs": {"int": [1, 2]}}
    assert "network.decoder_convs (sweep.space)" in mistakes(space)
    space["network.decoder_convs"]["when"] = {"network": "unet"}
    base = composed()
    require_fits(space_of(space, base.folders), base, [])


def test_what_trials_share_is_not_drawn() -> None:
    assert "folds is the same for all trials" in mistakes({"folds.count": {"int": [2, 5]}})
