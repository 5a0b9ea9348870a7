"""The group ``plan``: beneath experiment and command line, and giving way where another option is chosen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pipeline.cli import main
from pipeline.commands.plan import plan_and_compose
from pipeline.conf_dir import conf_dir
from pipeline.config.compose import compose
from pipeline.config.plans import compose_with_plan
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.errors import UserError
from tests.fingerprints import fingerprint

PLAN = """# @package _global_
# By hand:  python -m pipeline plan=mine
defaults:
  - override /augmentation: nnunet
  - override /sampling: nnunet
  - override /network: unet
  - override /loss: dice_ce_batch
  - override /optimizer: sgd
  - override /schedule: poly
transforms:
  spacing: [1.5, 1.5, 1.5]
  size: null
  window: null
  preprocessing:
    - _target_: monai.transforms.NormalizeIntensityd
      keys: [image]
sampling:
  patch_size: [40, 56, 40]
  batch_size: 7
network:
  strides: [[1, 1, 1], [2, 2, 2]]
  kernel_sizes: [[3, 3, 3], [3, 3, 3]]
  width: 24
optimizer:
  lr: 0.03
schedule:
  budget: 15m
  epochs: null
trainer:
  ema_decay: null
"""
EXPERIMENT = """# @package _global_
# By hand:  python -m pipeline experiment=mine
defaults:
  - override /network: segresnet
sampling:
  batch_size: 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("plan/mine", PLAN), ("experiment/mine", EXPERIMENT)):
        path = tmp_path / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "mine"


def tree(folder: Path, *overrides: str) -> dict[str, Any]:
    return validate(compose("train", overrides, config_dirs=[folder]), TrainConfig).tree


def test_a_plan_wins_over_the_defaults(folder: Path) -> None:
    found = tree(folder, "plan=mine")
    assert found["sampling"]["patch_size"] == [40, 56, 40]
    assert found["sampling"]["forced"] == "per_batch"
    assert found["network"]["width"] == 24
    assert (found["optimizer"]["_target_"], found["optimizer"]["lr"]) == ("torch.optim.SGD", 0.03)
    assert found["schedule"]["shape"]["_target_"].endswith("Polynomial")
    assert len(found["transforms"]["preprocessing"]) == 1
    assert found["transforms"]["batch_augmentation"]
    assert found["trainer"]["ema_decay"] is None


def test_values_on_the_command_line_win(folder: Path) -> None:
    found = tree(folder, "plan=mine", "sampling.batch_size=2", "network.width=8", "optimizer.lr=0.1",
                 "transforms.spacing=[2,2,2]", "schedule.budget=1h")  # fmt: skip
    assert found["sampling"]["batch_size"] == 2
    assert (found["network"]["width"], found["optimizer"]["lr"]) == (8, 0.1)
    assert found["transforms"]["spacing"] == [2, 2, 2]
    assert found["schedule"]["budget"] == "1h"


def test_another_option_takes_the_place_of_what_the_plan_says_of_its_own(folder: Path) -> None:
    found = tree(folder, "plan=mine", "network=segresnet", "optimizer=adam", "transforms=ct_3d")
    assert found["network"]["_target_"].endswith("PadToMultiple")
    assert "strides" not in found["network"]
    assert found["optimizer"]["lr"] == 0.001  # Adam's, not that planned for SGD
    assert len(found["transforms"]["preprocessing"]) == 3
    assert found["sampling"]["patch_size"] == [40, 56, 40]
    assert found["schedule"]["budget"] == "15m"


def test_transforms_that_turn_the_axes_otherwise_than_the_plan_are_refused(folder: Path) -> None:
    """Patch, strides and kernels of a plan for S, R, A would be cut from images in R, A, S."""
    turn = "    - _target_: monai.transforms.Orientationd\n      keys: [image, label]\n      axcodes: SRA\n"
    path = folder / "plan" / "mine.yaml"
    path.write_text(PLAN.replace("  preprocessing:\n", f"  preprocessing:\n{turn}"))
    assert tree(folder, "plan=mine")["sampling"]["patch_size"] == [40, 56, 40]
    for chosen in (["transforms=ct_3d"], ["experiment=lung_unet"]):
        with pytest.raises(UserError) as raised:
            tree(folder, "plan=mine", *chosen)
        assert "mine.yaml gives its sizes (patch, strides, kernels) along the axes SRA" in str(raised.value)
        assert "turn images to RAS" in str(raised.value)
        assert "planning.short_axis=0" in str(raised.value)
    for code in ("SRA", "ILP"):
        override = f"transforms.preprocessing.0.axcodes={code}"
        assert tree(folder, "plan=mine", "transforms=ct_3d", override)["transforms"]["window"] is not None
    path.write_text(PLAN)  # a plan that leaves the axes as they are says nothing of their order
    assert tree(folder, "plan=mine", "transforms=ct_3d")["transforms"]["window"] is not None


@pytest.mark.parametrize(
    "own", [["sampling.patch_size=[128,128,8]"], ["transforms=mri_3d"], ["transforms.spacing=[0.7,0.7,4]"], []]
)
def test_sizes_that_the_user_gives_are_along_the_axes_as_they_are(own: list[str]) -> None:
    """Only a plan of which nothing else depends on the order of the axes turns them."""
    prostate = fingerprint([0.625, 0.625, 3.6], [320, 320, 20], cases=32)
    overrides = ["experiment=auto", "plan.budget=10m", "plan.accelerator=cpu", *own]
    said = io.StringIO()
    first = validate(compose("train", overrides), TrainConfig)
    plan, text, found = plan_and_compose(first, prostate, Console(file=said, width=200))
    order = "RAS" if own else "SRA"
    assert plan.values["transforms"]["preprocessing"][0]["axcodes"] == order
    assert f"axcodes: {order} " in text
    assert found.tree["transforms"]["preprocessing"][0]["axcodes"] == order
    kernel = found.tree["network"]["kernel_sizes"][0]  # the slices are thick: flat kernels first
    assert kernel == ([3, 3, 1] if own else [1, 3, 3])
    assert ("the axes stay in the order RAS, in which" in said.getvalue()) == bool(own)


def test_another_sampling_or_schedule_keeps_the_planned_sizes(folder: Path) -> None:
    found = tree(folder, "plan=mine", "sampling=balanced", "schedule=cosine", "augmentation=none", "loss=dice")
    assert (found["sampling"]["mode"], found["sampling"]["foreground_fraction"]) == ("balanced", 1.0)
    assert found["sampling"]["batch_size"] == 7
    assert found["schedule"]["shape"]["_target_"].endswith("Cosine")
    assert found["schedule"]["budget"] == "15m"
    assert found["transforms"]["batch_augmentation"] == []
    assert found["loss"]["function"]["_target_"].endswith("DiceLoss")


@pytest.mark.parametrize("order", [["plan=mine", "experiment=mine"], ["experiment=mine", "plan=mine"]])
def test_an_experiment_wins(folder: Path, order: list[str]) -> None:
    found = tree(folder, *order)
    assert found["sampling"]["batch_size"] == 3
    assert found["network"]["_target_"].endswith("PadToMultiple")
    assert "strides" not in found["network"]
    assert found["optimizer"]["lr"] == 0.03
    assert tree(folder, *order, "network=unet")["network"]["width"] == 24


def test_the_same_option_by_name_keeps_the_plan(folder: Path) -> None:
    assert tree(folder, "plan=mine", "network=unet")["network"]["width"] == 24


def test_cfg_shows_what_would_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["plan=mine", "network=segresnet", "sampling.batch_size=2"]
    assert main(["--config-dir", str(folder), *overrides, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown == tree(folder, *overrides)


def test_auto_validates_and_shows_before_it_plans(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=auto", "plan.budget=15m", "--cfg", "job", "--package", "plan"]) == 0
    assert "budget: 15m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["plan.budget=15m"], "no plan is made here: experiment=auto makes one, plan=NAME uses one"),
        (["experiment=auto", "plan.budget=soon"], "plan.budget (command line)"),
        (["experiment=auto", "plan.budget=0m"], "is no time to train in"),
        (["experiment=auto", "plan.memory=8"], "did you mean plan.memory_gb?"),
        (["experiment=auto", "planning.overlapp=0.5"], "did you mean planning.overlap?"),
        (["experiment=auto", "plan.accelerator=gpuu"], "did you mean gpu?"),
        (["experiment=auto", "network=segresnet", "network.widht=3"], "network.widht"),
        (["experiment=auto", "sampling.batchsize=3"], "did you mean sampling.batch_size?"),
        (["plan=phantom_lun"], "did you mean plan=phantom_lung?"),
        (["plan"], "output"),
        (["plan", "output=my.yaml"], "a folder called plan"),
        (["plan", "output=plan/my"], "a folder called plan"),
        (["experiment=auto", "plan=phantom_lung"], "leave out one"),
    ],
)
def test_mistakes(arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert answer in said
    assert "Traceback" not in said


def test_overrides_meant_for_what_is_planned_are_judged_with_the_plan(folder: Path) -> None:
    """``momentum`` is SGD's, which only the plan chooses; a typo is found then, too."""
    first = validate(compose("train", ["experiment=auto", "optimizer.momentum=0.9"], config_dirs=[folder]), TrainConfig)
    found = compose_with_plan(first, PLAN, TrainConfig)
    assert (found.tree["optimizer"]["momentum"], found.tree["optimizer"]["lr"]) == (0.9, 0.03)
    assert found.overrides == first.overrides
    wrong = validate(compose("train", ["experiment=auto", "network.widht=3"]), TrainConfig)
    with pytest.raises(UserError) as raised:
        compose_with_plan(wrong, PLAN, TrainConfig)
    assert "did you mean width?" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("network:\n  _target_: os.system\n  command: touch MARKER\n", "not allowed"),
        ("transforms:\n  preprocessing:\n    - _target_: torch.hub.load\n      repo_or_dir: .\n", "not allowed"),
        ("trust: [os]\n", "only the command line may add trusted modules"),
        ("name: ${oc.env:HOME}\n", "is not allowed"),
        ("sampling:\n  batchsize: 3\n", "did you mean sampling.batch_size?"),
    ],
)
def test_a_plan_from_a_stranger_runs_no_code(
    tmp_path: Path, text: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "theirs" / "plan" / "evil.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\n# Evil\n" + text.replace("MARKER", str(marker)))
    assert main(["--config-dir", str(tmp_path / "theirs"), "plan=evil"]) == 2
    said = capsys.readouterr().err
    assert answer in said
    assert "evil.yaml" in said
    assert not marker.exists()


def test_a_plan_sets_keys_of_the_whole_configuration(tmp_path: Path) -> None:
    path = tmp_path / "plan" / "bare.yaml"
    path.parent.mkdir()
    path.write_text("# Bare\nname: bare\n")
    with pytest.raises(UserError, match="an option of plan sets keys of the whole configuration") as raised:
        tree(tmp_path, "plan=bare")
    assert "# @package _global_" in str(raised.value)


def test_a_plan_stands_between_self_and_experiment() -> None:
    entries = yaml.safe_load((conf_dir() / "train.yaml").read_text())["defaults"]
    names = [entry if isinstance(entry, str) else next(iter(entry)).split()[-1] for entry in entries]
    assert names[-3:] == ["_self_", "plan", "experiment"]
