"""Every configuration under conf/, found by listing: it composes, validates and, where it names classes, builds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.conf_dir import conf_dir, primary_configs
from pipeline.config.build import build, fill_derived
from pipeline.config.compose import Composed, compose
from pipeline.config.interpolation import leaves
from pipeline.config.schema import COMMANDS
from pipeline.config.validate import validate
from pipeline.config.yaml_files import read_yaml

FILES = sorted(conf_dir().rglob("*.yaml"))
PRIMARY = sorted(primary_configs())
SPACES = "space"  # no group: files that sweep.space names, see test_spaces.py
GROUPS = [file for file in FILES if file.parent != conf_dir() and file.parent.name != SPACES]
OPTIONS = [str(file.relative_to(conf_dir()).with_suffix("")) for file in GROUPS]
EXPERIMENTS = [option.partition("/")[2] for option in OPTIONS if option.startswith("experiment/")]
BUILT = ("network", "loss", "optimizer", "schedule", "transforms")
NEEDED = {
    "predict": ["run=a", "input=b", "output=c"],
    "sync": ["run=a"],
    "report": ["run=a"],
    "fold": ["run=a", "fold=0"],
    "reproduce": ["run=a"],
    "compare": ["runs=[a,b]"],
    "import": ["source=a", "output=b"],
    "plan": ["output=plan/a.yaml"],
}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that tracking=server takes from the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")


def composed(command: str, *overrides: str) -> Composed:
    return validate(compose(command, [*NEEDED.get(command, []), *overrides]), COMMANDS[command])


def derived(spatial_dims: int) -> dict[str, Any]:
    return {
        "spatial_dims": spatial_dims,
        "in_channels": 1,
        "out_channels": 3,
        "patch_size": [64] * spatial_dims,
        "spacing": [1.0] * spatial_dims,
        "class_weights": [1.0, 2.0, 3.0],
    }


def name(path: Path) -> str:
    return str(path.relative_to(conf_dir()))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_file_opens_with_what_it_is_and_the_command_that_uses_it(file: Path) -> None:
    header = read_yaml(file).header
    assert file.read_text(encoding="utf-8").startswith("#")
    assert read_yaml(file).summary
    commands = [line for line in header if "python -m pipeline" in line]
    assert commands, "no command in the opening comment"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_command_in_a_files_comment_composes(file: Path) -> None:
    line = next(line for line in read_yaml(file).header if "python -m pipeline" in line)
    words = shlex.split(line.partition("python -m pipeline")[2])
    command = words.pop(0) if words and words[0] in COMMANDS else "train"
    assert validate(compose(command, words), COMMANDS[command])


def test_every_command_has_a_primary_configuration() -> None:
    assert set(PRIMARY) == set(COMMANDS)


@pytest.mark.parametrize("command", PRIMARY)
def test_a_primary_configuration_validates(command: str) -> None:
    assert composed(command).tree


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_composes_and_validates(option: str) -> None:
    group, _, choice = option.rpartition("/")
    assert composed("sweep" if group == "sweep" else "train", f"{group}={choice}").tree


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith(BUILT)])
def test_an_option_builds(option: str) -> None:
    group, _, choice = option.rpartition("/")
    tree = composed("train", f"{group}={choice}").tree
    dims = [2] if option.endswith("_2d") else [3] if option.endswith("_3d") else [2, 3]
    built = 0
    for spatial_dims in dims:
        plain = fill_derived(tree, derived(spatial_dims))[group]
        nodes = {"": plain} if "_target_" in plain else plain
        for key, node in nodes.items():
            if "_target_" in str(node):
                made = build(node, f"{group}.{key}".rstrip("."))
                assert made
                built += 1
    assert built


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiments_own_values_survive(experiment: str) -> None:
    file = conf_dir() / "experiment" / f"{experiment}.yaml"
    tree = composed("train", f"experiment={experiment}").tree
    own = {key: value for key, value in read_yaml(file).content.items() if key != "defaults"}
    assert own
    for keys, value in leaves(own):
        node: Any = tree
        for key in keys:
            node = node[key]
        assert node == value, ".".join(map(str, keys))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiments_choices_survive(experiment: str) -> None:
    file = conf_dir() / "experiment" / f"{experiment}.yaml"
    composition = compose("train", [f"experiment={experiment}"])
    merged = {str(layer.path) for _, layer in composition.layers}
    for entry in read_yaml(file).content.get("defaults", []):
        for key, option in entry.items() if isinstance(entry, dict) else ():
            group = re.sub(r"^override /", "", key)
            assert str(conf_dir().resolve() / group / f"{option}.yaml") in merged


@pytest.mark.parametrize("command", PRIMARY)
def test_self_stands_before_experiment(command: str) -> None:
    entries = yaml.safe_load(primary_configs()[command].read_text(encoding="utf-8")).get("defaults", [])
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    assert "_self_" in names
    assert names.index("_self_") < next((i for i, n in enumerate(names) if n.endswith("experiment")), len(names))
