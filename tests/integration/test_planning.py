"""``plan`` and ``experiment=auto`` on tiny data sets of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from pipeline.cli import main
from pipeline.config.build import build, fill_derived
from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.training.augmentation import batch_augmentation
from tests.integration.generated import (
    NODULES,
    SARCOMA,
    SHENZHEN,
    TUMOUR,
    blob,
    hippocampus,
    medmnist,
    nodules,
    sarcoma,
    shenzhen,
)

LABELS = "data.labels={0: background, 1: organ}"


def volumes(root: Path, *, spacing: tuple[float, ...], shape: tuple[int, ...], hounsfield: bool) -> None:
    """cases.csv with images and masks."""
    rng = np.random.default_rng(5)
    root.mkdir(parents=True)
    rows = ["case_id,patient_id,image,label"]
    affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
    for number in range(10):
        image, inside = blob(shape, rng)
        voxels = (image * 8 - 1000).astype(np.int16) if hounsfield else image.astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, affine), root / f"{number}.nii.gz")
        nib.save(nib.Nifti1Image(inside, affine), root / f"{number}_mask.nii.gz")
        rows.append(f"{number},p{number},{number}.nii.gz,{number}_mask.nii.gz")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")


def anisotropic(root: Path) -> None:
    volumes(root, spacing=(1.0, 1.0, 5.0), shape=(48, 52, 9), hounsfield=False)


def ct(root: Path) -> None:
    volumes(root, spacing=(2.0, 2.0, 2.5), shape=(36, 32, 28), hounsfield=True)


def planes(root: Path) -> None:
    volumes(root, spacing=(0.5, 0.7), shape=(48, 40), hounsfield=False)


# how the data are written, what the user says of them, axes, channels, outputs
KINDS: dict[str, tuple[Callable[[Path], None], list[str], int, int, int]] = {
    "pictures": (shenzhen, [*SHENZHEN, 'data.columns.label="masks/{file}"', "data.labels={0: bg, 255: lung}"], 2, 1, 2),
    "planes in mm": (planes, ["data=table", LABELS], 2, 1, 2),
    "isotropic": (hippocampus, ["data=decathlon"], 3, 1, 3),
    "anisotropic": (anisotropic, ["data=table", LABELS], 3, 1, 2),
    "CT": (ct, ["data=table", LABELS], 3, 1, 2),
    "several modalities": (sarcoma, [*SARCOMA, TUMOUR, "data.missing.modality=mean"], 3, 3, 2),
    "classified pictures": (medmnist, ["task=classification", "data=medmnist"], 2, 1, 2),
    "classified volumes": (nodules, ["task=classification", *NODULES, "data.columns.label=null",
                                     "data.columns.target=class", "data.targets=[benign,malignant]"], 3, 1, 2),
}  # fmt: skip
BUDGETS = {"minutes": ["plan.budget=10m", "plan.accelerator=cpu"], "none": ["plan.accelerator=gpu"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The arguments that name a data set, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("planned")

    def arguments(kind: str) -> list[str]:
        root = folder / kind.replace(" ", "_")
        if not root.exists():
            KINDS[kind][0](root)
        return [*KINDS[kind][1], f"data.root={root}", f"cache={folder / 'cache'}"]

    return arguments


def composed(path: Path, *overrides: str) -> Any:
    folders = [path.parent.parent]
    return validate(compose("train", [f"plan={path.stem}", *overrides], config_dirs=folders), TrainConfig)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_composes_and_builds(
    kind: str, budget: str, data: Callable[[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan" / "my.yaml"
    arguments = data(kind)
    assert main(["plan", *arguments, *BUDGETS[budget], f"output={path}"]) == 0
    assert "Train with it: python -m pipeline --config-dir" in capsys.readouterr().out
    found = composed(path, *arguments)
    settings = found.model
    patch = settings.sampling.patch_size or settings.transforms.size
    _, _, dims, channels, outputs = KINDS[kind]
    assert len(patch) == dims
    tree = fill_derived(
        found.tree,
        {"spatial_dims": dims, "in_channels": channels, "out_channels": outputs, "patch_size": patch,
         "spacing": settings.transforms.spacing or [1.0] * dims, "class_weights": None,
         "sides": {"axes": [0], "paired": False, "swaps": []}},
    )  # fmt: skip
    for key in ("optimizer", "loss.function", "schedule.shape"):
        section, _, inner = key.partition(".")
        assert build(tree[section][inner] if inner else tree[section], key)
    assert build(tree["transforms"]["preprocessing"], "transforms.preprocessing")
    assert batch_augmentation(tree["transforms"], ())
    network = build(tree["network"], "network").eval()
    with torch.inference_mode():
        logits = network(torch.zeros(1, channels, *patch))
    assert logits.shape[:2] == (1, outputs)
    if settings.task == "segmentation":
        assert list(logits.shape[2:]) == patch


def test_the_same_data_and_budget_give_the_same_file(data: Callable[[str], list[str]], tmp_path: Path) -> None:
    """Whether measured or remembered, wherever it is written."""
    arguments = data("anisotropic")
    paths = [tmp_path / name / "plan" / "my.yaml" for name in "abc"]
    for number, path in enumerate(paths):
        fresh = [*arguments[:-1], f"cache={tmp_path / str(number % 2)}"]
        assert main(["plan", *fresh, "plan.budget=10m", "plan.accelerator=cpu", f"output={path}"]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes() == paths[2].read_bytes()
    before = paths[0].stat().st_mtime_ns
    assert main(["plan", *arguments, "plan.budget=10m", "plan.accelerator=cpu", f"output={paths[0]}"]) == 0
    assert paths[0].stat().st_mtime_ns >= before


def test_an_edited_plan_is_not_overwritten(
    data: Callable[[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan" / "my.yaml"
    command = ["plan", *data("pictures"), "plan.accelerator=cpu", f"output={path}"]
    assert main(command) == 0
    edited = path.read_text().replace("batch_size: 2", "batch_size: 3")
    path.write_text(edited)
    assert main(command) == 2
    assert "differs from the plan of these data" in capsys.readouterr().err
    assert path.read_text() == edited


def test_auto_plans_and_trains_under_the_users_overrides(
    data: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    short = ["trainer.max_steps=2", "trainer.validate_every=1", "folds.count=2", "folds.run=[0]",
             "sampling.batches_per_epoch=2", f"output={tmp_path / 'run'}", f"tracking.uri={store}"]  # fmt: skip
    own = ["sampling.batch_size=3", "network.width=8", "optimizer=adam", "augmentation=none", "name=own"]
    assert main(["experiment=auto", *data("anisotropic"), "plan.budget=5m", "plan.accelerator=cpu", *own, *short]) == 0
    run = tmp_path / "run"
    plan = yaml.safe_load((run / "plan.yaml").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert plan["sampling"]["batch_size"] != 3
    assert (config["sampling"]["batch_size"], config["network"]["width"], config["name"]) == (3, 8, "own")
    assert config["sampling"]["patch_size"] == plan["sampling"]["patch_size"]
    assert config["network"]["strides"] == plan["network"]["strides"]
    assert config["optimizer"]["_target_"] == "torch.optim.Adam"
    assert config["optimizer"]["lr"] == 0.001
    assert config["transforms"]["batch_augmentation"] == []
    assert config["transforms"]["spacing"] == plan["transforms"]["spacing"]
    assert (config["schedule"]["budget"], config["schedule"]["epochs"]) == ("5m", None)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["folds"][0]["steps"] == 2
    client = MlflowClient(store)
    names = {item.path for item in client.list_artifacts(summary["mlflow"]["run_id"])}
    assert {"config.yaml", "plan.yaml"} <= names
    assert "Plan: spacing" in capsys.readouterr().out

    copied = tmp_path / "conf" / "plan" / "my.yaml"  # the plan of a run, used again
    copied.parent.mkdir(parents=True)
    copied.write_bytes((run / "plan.yaml").read_bytes())
    assert composed(copied).model.sampling.patch_size == plan["sampling"]["patch_size"]


@pytest.mark.parametrize("kind", ["classified volumes", "several modalities", "pictures"])
def test_auto_on_other_kinds(
    kind: str, data: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["trainer.max_steps=2", "folds.count=2", "folds.run=[0]", "sampling.batches_per_epoch=2",
             "tracking.enabled=false", f"output={tmp_path / 'run'}"]  # fmt: skip
    assert main(["experiment=auto", *data(kind), "plan.budget=5m", "plan.accelerator=cpu", *short]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["folds"][0]["steps"] == 2


def test_a_typo_for_what_is_planned_is_told_before_data_are_read(
    data: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiment=auto", *data("isotropic"), "plan.budget=5m", "network.widht=3"]) == 2
    out, said = capsys.readouterr()
    assert "network.widht (command line): UNet has no parameter 'widht'" in said
    assert "did you mean width?" in said
    assert "checked" not in out
    classification = ["experiment=auto", "task=classification", "network.widht=3", "plan.budget=5m"]
    assert main(classification) == 2
    assert "CNN has no parameter 'widht'" in capsys.readouterr().err
    late = ["experiment=auto", *data("isotropic"), "plan.budget=5m", "transforms.preprocessing.0.axcodess=LPS"]
    assert main(late) == 2
    assert "Orientationd has no parameter 'axcodess'" in capsys.readouterr().err
