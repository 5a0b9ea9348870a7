"""What gives way on the command line: mappings with keys of the user, values of an experiment for another choice."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline.cli import main
from pipeline.config.compose import compose
from pipeline.config.overrides import for_hydra
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate


def composed(*overrides: str) -> dict[str, Any]:
    return validate(compose("train", overrides), TrainConfig).tree


def test_labels_on_the_command_line_replace_those_of_the_experiment() -> None:
    tree = composed("experiment=lung_xray_unet", "data.labels={0: background, 1: heart}")
    assert tree["data"]["labels"] == {0: "background", 1: "heart"}


def test_columns_are_added_to_those_of_the_experiment() -> None:
    columns = composed("experiment=lung_xray_unet", "data.columns={image: scan}")["data"]["columns"]
    assert (columns["image"], columns["label"]) == ("scan", "masks/{file}")


@pytest.mark.parametrize("before", ["experiment=lung_xray_unet", "data=table"])  # other labels, and none
def test_hydra_shows_what_a_run_takes(before: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [before, "data.labels={0: background, 1: heart}", "--cfg", "job"]
    assert main(shown) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["labels"] == {0: "background", 1: "heart"}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data.labels={0: a}", ["data.labels=null", "+data.labels={0: a}"]),
        ("data.columns={image: a}", ["data.columns={image: a}"]),
        ("loss={_target_: a.b}", ["~loss", "+loss={_target_: a.b}"]),
        ("+data.labels={0: a}", ["+data.labels={0: a}"]),
        ("data.labels=null", ["data.labels=null"]),
        ("seed=1,2", ["seed=1,2"]),
        ("not an override", ["not an override"]),
    ],
)
def test_in_words_of_hydra(override: str, parts: list[str]) -> None:
    assert for_hydra(override) == parts


def test_another_data_set_takes_nothing_from_the_experiments_own() -> None:
    tree = composed("experiment=tb_xray_cnn", "data=class_folders", "data.root=somewhere")
    assert tree["data"]["format"] == "class_folders"
    assert tree["data"]["columns"] is None
    assert tree["data"]["targets"] is None
    assert (tree["name"], tree["task"], tree["sampling"]["batch_size"]) == ("tb_xray_cnn", "classification", 16)


def test_the_experiments_own_data_set_keeps_its_values() -> None:
    tree = composed("experiment=tb_xray_cnn", "data=table", "data.root=somewhere")
    assert tree["data"]["columns"]["image"] == "images/{file}"


def test_the_rate_of_one_optimizer_is_not_that_of_another() -> None:
    assert composed("experiment=lung_unet")["optimizer"]["lr"] == 0.004
    assert (
        composed("experiment=lung_unet", "optimizer=sgd")["optimizer"]["lr"]
        == composed("optimizer=sgd")["optimizer"]["lr"]
    )


def test_a_misspelt_section_is_found_where_it_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedul.epochs=1"]) == 2
    assert "schedul (command line)" in capsys.readouterr().err
