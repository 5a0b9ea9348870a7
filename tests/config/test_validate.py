from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from pipeline.config.build import fill_derived
from pipeline.config.compose import Composed, compose
from pipeline.config.validate import validate
from pipeline.errors import UserError, UserErrors


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Folds(Section):
    count: int
    run: list[int] | None


class Tracking(Section):
    uri: str | None


class Train(Section):
    name: str
    seed: int
    rate: float
    output: str | None
    trust: list[str]
    folds: Folds
    tracking: Tracking
    network: dict[str, Any]
    optimizer: dict[str, Any]
    derived: dict[str, Any]


MakeConf = Callable[..., Path]


def check(folder: Path, *overrides: str, **options: Any) -> Composed:
    return validate(compose("train", overrides, conf=folder, **options), Train)


def mistakes(folder: Path, *overrides: str, **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        check(folder, *overrides, **options)
    errors = caught.value.errors if isinstance(caught.value, UserErrors) else (caught.value,)
    return [str(error) for error in errors]


def test_a_configuration_without_mistakes(conf: MakeConf) -> None:
    composed = check(conf(), "experiment=small", "folds.count=3", "network.growth_rate=16")
    assert isinstance(composed.model, Train)
    assert (composed.model.name, composed.model.folds.count) == ("small", 3)
    assert composed.tree["network"]["_target_"].endswith("DenseNet121")
    assert composed.tree["network"]["growth_rate"] == 16
    assert composed.tree["optimizer"]["lr"] == "${rate}"
    assert composed.overrides == ("experiment=small", "folds.count=3", "network.growth_rate=16")


def test_all_mistakes_are_listed_together_with_their_place_and_the_nearest_name(conf: MakeConf) -> None:
    folder = conf(
        {
            "experiment/bad.yaml": """
# @package _global_
# Bad
defaults:
  - overide /network: cnn
  - override /optimizer: sdg
name: bad
folds:
  cuont: 3
network:
  growth_rte: 8
  bn_size: many
optimizer:
  lr: ${rates}
"""
        }
    )
    told = mistakes(folder, "experiment=bad", "folds=kfld", "sede=1", "folds.run=all", "optimizer.momentun=0.9", "x")
    expected = [
        ("x (command line)", "not of the form key=value"),
        ("folds=kfld (command line)", "did you mean folds=kfold?"),
        ("bad.yaml:4", "unknown keyword 'overide'\n    did you mean override?"),
        ("bad.yaml:5", "no option 'sdg'\n    did you mean optimizer: sgd?"),
        ("optimizer.lr", "bad.yaml:13", "no such key\n    did you mean rate?"),
        ("sede (command line)", "did you mean seed?"),
        ("folds.run (command line)", "'all': should be a valid"),
        ("folds.cuont", "bad.yaml:8", "did you mean folds.count?"),
        ("network.growth_rte", "bad.yaml:10", "did you mean growth_rate?"),
        ("network.bn_size", "bad.yaml:11", "DenseNet121 takes bn_size: int"),
        ("optimizer.momentun (command line)", "did you mean momentum?"),
    ]
    for parts in expected:
        assert sum(all(part in text for part in parts) for text in told) == 1, (parts, told)
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    ("override", "fault", "remedy"),
    [
        ("network=unett", "network has no option 'unett'", "network=unet"),
        ("network=zzz", "network has no option 'zzz'", "valid here: cnn, unet"),
        ("netwrok=unet", "netwrok (command line): unknown key", "network"),
        ("netwrok/deep=unet", "no group 'netwrok/deep'", "network"),
        ("count=3", "count (command line): unknown key", "folds.count"),
        ("folds.count=three", "'three': should be a valid integer", ""),
        ("folds.count=2.5", "2.5: should be a valid integer", ""),
        ("folds.count=true", "True: should be a valid integer", ""),
        ("folds.count=???", "folds.count (command line): a value is needed", "folds.count=VALUE"),
        ("folds.run=0,1", "several values for one run", "folds.run=[0,1]"),
        ("folds.run[0]=1", "'folds.run[0]' is not a key", "folds.run.0=1"),
        ("seed.x=1", "seed is a value", ""),
        ("~network.strids", "nothing to delete", "~network.strides"),
        ("network.channels.5=1", "is a list of 2", ""),
        ("network._parital_=true", "unknown key", "_partial_"),
        ("network.in_channels=${derived.chanels}", "do not determine 'chanels'", "derived.channels"),
        ("name=${oc.env:HOME}", "is not allowed", "below tracking"),
        ("name=${name}", "refers to itself", ""),
        ("name=a${network}", "is a dict and cannot stand inside text", ""),
        ("tracking.uri=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE is not set", "export"),
        ("network._target_=monai.networks.nets.UNett", "no 'UNett' in monai.networks.nets", "monai.networks.nets.UNet"),
        ("network._target_=monai.networks.netz.UNet", "no 'netz' in monai.networks", "monai.networks.nets"),
        ("hydra.run.dir=x", "has no effect", "output=FOLDER"),
        ("+network@other=cnn", "other", ""),
    ],
)
def test_each_mistake_on_the_command_line(conf: MakeConf, override: str, fault: str, remedy: str) -> None:
    told = mistakes(conf(), override)
    assert len(told) == 1, told
    assert fault in told[0]
    assert remedy in told[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: x\n", "let the file open with the line: # @package _global_"),
        ("#\nname: [\n", "bad.yaml:4: not valid YAML"),
        ("#\nname: a\nname: b\n", "bad.yaml:4: not valid YAML: found duplicate key name"),
        ("#\n- a\n", "holds a list"),
        ("#\nname: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("#\ndefaults:\n  - override network: cnn\n", "did you mean /network?"),
        ("#\ndefaults:\n  - override /netwrk: cnn\n", "did you mean /network?"),
        ("#\ndefaults:\n  - override /network: [cnn\n", "not valid YAML"),
        ("#\ndefaults:\n  - smal\n", "did you mean small?"),
        ("#\ndefaults:\n  - bad\n", "leads back to this file"),
        ("#\ndefaults: small\n", "defaults: is a str, not a list"),
        ("#\ndefaults:\n  - override /network: cnn\n    override /folds: kfold\n", "is not an entry"),
        ("#\ntrust: [os]\n", "run with trust=[os]"),
        ("#\nfolds: 3\n", "folds"),
    ],
)
def test_each_mistake_in_a_file(conf: MakeConf, text: str, fault: str) -> None:
    header = "# @package _global_\n" if text.startswith("#") else ""
    told = mistakes(conf({"experiment/bad.yaml": header + text}), "experiment=bad")
    assert len(told) == 1, told
    assert fault in told[0]


def test_a_missing_key_is_told_once_for_its_section(conf: MakeConf) -> None:
    told = mistakes(conf({"folds/kfold.yaml": "# Folds\nstratify: true\n"}))
    assert any("folds.count" in text and "missing: count, run" in text for text in told)


def test_a_group_that_the_command_does_not_have(conf: MakeConf) -> None:
    told = mistakes(conf({"loss/dice.yaml": "# Dice\na: 1\n"}), "loss=dice")
    assert told == [
        "loss=dice (command line): train has no group 'loss'\n    valid here: experiment, folds, network, optimizer"
    ]


def test_nested_targets_are_checked_at_any_depth(conf: MakeConf) -> None:
    text = """
# Nested
_target_: torch.nn.Sequential
_args_:
  - _target_: torch.nn.Conv3d
    in_channels: 1
    out_channels: 2
    kernel_size: 3
    strid: 1
  - _target_: torch.nn.Linear
    in_features: 3
"""
    told = mistakes(conf({"network/deep.yaml": text}), "network=deep")
    assert len(told) == 2
    assert "network._args_.0.strid" in told[0]
    assert "did you mean stride?" in told[0]
    assert "network._args_.1._target_" in told[1]
    assert "Linear needs out_features" in told[1]


def test_environment_variables_reach_the_tracker_alone(conf: MakeConf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "http://user:secret@host")
    composed = check(conf(), "tracking.uri=${oc.env:STORE}")
    assert composed.model.tracking.uri == "http://user:secret@host"  # type: ignore[attr-defined]
    assert "secret" not in str(composed.tree)
    assert "secret" not in str(fill_derived(composed.tree, {"channels": 1}))


@pytest.mark.parametrize("path", ["/data (1)/größe", "/a b/c=d", "/x,y/z"])
def test_paths_need_no_quotes(conf: MakeConf, path: str) -> None:
    if "," in path:
        assert "text with a comma" in mistakes(conf(), f"output={path}")[0]
    else:
        assert check(conf(), f"output={path}").model.output == path  # type: ignore[attr-defined]


def test_a_number_typed_for_text_is_text(conf: MakeConf) -> None:
    assert check(conf(), "output=1e5").model.output == "1e5"  # type: ignore[attr-defined]
    assert check(conf(), "output=007").tree["output"] == "007"


def test_fill_derived_resolves_every_reference(conf: MakeConf) -> None:
    tree = fill_derived(check(conf()).tree, {"channels": 3})
    assert tree["network"]["in_channels"] == 3
    assert tree["optimizer"]["lr"] == 0.1


def test_a_folder_of_ones_own(conf: MakeConf, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "network"
    mine.mkdir(parents=True)
    (mine / "wide.yaml").write_text("# Wide\n_target_: monai.networks.nets.UNet\nspatial_dims: 3\nin_channels: 1\n"
                                    "out_channels: 2\nchannels: [4, 8]\nstrides: [2]\n")  # fmt: skip
    folder = conf()
    composed = check(folder, "network=wide", config_dirs=[mine.parent])
    assert composed.tree["network"]["in_channels"] == 1
    assert check(folder, "network=wide", f"hydra.searchpath=[file://{mine.parent}]").tree == composed.tree
    with pytest.raises(UserError, match="no such configuration folder"):
        check(folder, config_dirs=[tmp_path / "absent"])


def test_a_file_that_the_shipped_one_hides(conf: MakeConf, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "network"
    mine.mkdir(parents=True)
    folder = conf()
    (mine / "unet.yaml").write_text((folder / "network" / "unet.yaml").read_text())
    assert check(folder, config_dirs=[mine.parent])
    (mine / "unet.yaml").write_text("# Mine\n_target_: monai.networks.nets.UNet\n")
    assert "mine/network/unet.yaml is hidden by" in mistakes(folder, config_dirs=[mine.parent])[0]


def nested(first: str, line: str) -> str:
    """Eight lines, each made of several references to the one before."""
    return first + "".join(line.replace("NEW", f"v{i}").replace("OLD", f"v{i - 1}") for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (nested("v0: &v0 [x, x]\n", "NEW: &NEW [" + ",".join(["*OLD"] * 9) + "]\n"), "too large: more than"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested more than"),
        ("a: &a [*a]", "refers to itself"),
        ("\n".join(f"k{i}: x" for i in range(110_000)), "the limit for a configuration file is"),
        (nested("v0: xxxxxxxxxx\n", "NEW: " + "${OLD}" * 10 + "\n"), "too large: its references"),
        (nested("v0: [1, 1]\n", "NEW: [" + ",".join(['"${OLD}"'] * 9) + "]\n"), "too large: its references"),
    ],
    ids=["aliases", "depth", "recursion", "size", "text references", "list references"],
)  # fmt: skip
def test_hostile_files_are_refused_at_once(conf: MakeConf, text: str, fault: str) -> None:
    start = time.perf_counter()
    told = mistakes(conf({"experiment/evil.yaml": f"# @package _global_\n{text}\n"}), "experiment=evil")
    assert any(fault in each and "evil.yaml" in each for each in told), told
    assert time.perf_counter() - start < 20
