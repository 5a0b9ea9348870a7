"""Plans of the real data sets, where they are, and of the phantom: what they say, and that they train unedited."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from tests.integration.generated import NODULES, SARCOMA, SHENZHEN, TUMOUR

LUNGS = [*SHENZHEN, 'data.columns.label="masks/{file}"', "data.labels={0: bg, 255: lung}"]
NODULE = [*NODULES, 'data.columns.label="labels/{name}.nii.gz"', "data.labels={0: bg, 1: nodule}"]
HIPPOCAMPUS = ["data=decathlon"]
CLASSES = ["task=classification", "data.columns.label=null"]

# what the user says; median spacing (mm), patch (voxels) and batch for 8 GB of a GPU, None where they are not checked
PLANS = {
    "Task04_Hippocampus": (HIPPOCAMPUS, [1.0, 1.0, 1.0], [40, 56, 40], 7),
    "shenzhen_xray": (LUNGS, None, [256, 256], None),
    "lidc_nodules": (NODULE, None, None, None),
    "sts_sarcoma_ct_mr_pet": ([*SARCOMA, TUMOUR], None, None, None),
}

# folder (None: generated), what the user says, and what half a minute of training must exceed (chance: AUROC 0.5)
TRAINED = {
    "hippocampus": ("Task04_Hippocampus", HIPPOCAMPUS, "dice", 0.5),
    "lungs in X-rays": ("shenzhen_xray", LUNGS, "dice", 0.8),
    "nodules": ("lidc_nodules", NODULE, "dice", 0.3),
    "sarcoma": ("sts_sarcoma_ct_mr_pet", [*SARCOMA, TUMOUR], "dice", 0.05),
    "phantom": (None, ["data=phantom_lung"], "dice", 0.3),
    "tuberculosis": ("shenzhen_xray", [*SHENZHEN, *CLASSES, "data.columns.target=tuberculosis"], "auroc", 0.5),
    "malignancy": (
        "lidc_nodules",
        [*NODULES, *CLASSES, "data.columns.target=class", "data.targets=[benign,malignant]"],
        "auroc",
        0.5,
    ),
    "pneumonia": (
        "medmnist_2d",
        ["task=classification", "data=medmnist", "data.npz=pneumoniamnist.npz", "data.targets=[normal,pneumonia]",
         "data.target_names={0: normal, 1: pneumonia}"],
        "auroc",
        0.9,
    ),
    "breast ultrasound": (
        "medmnist_2d",
        ["task=classification", "data=medmnist", "data.npz=breastmnist.npz", "data.targets=[malignant,benign]",
         "data.target_names={0: malignant, 1: benign}"],
        "auroc",
        0.6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_what_is_planned(name: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    said, spacing, patch, batch = PLANS[name]
    path = tmp_path / "plan" / "my.yaml"
    arguments = [*said, f"data.root={real_data(name)}"]
    assert main(["plan", *arguments, "plan.accelerator=gpu", f"cache={tmp_path / 'cache'}", f"output={path}"]) == 0
    composed = compose("train", [f"plan={path.stem}", *arguments], config_dirs=[tmp_path])
    settings = validate(composed, TrainConfig).model
    assert settings.transforms.spacing == spacing or spacing is None
    assert settings.sampling.patch_size == patch or patch is None
    assert settings.sampling.batch_size == batch or batch is None


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_plan_trains_unedited(
    name: str, real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said, metric, least = TRAINED[name]
    monkeypatch.chdir(tmp_path)
    arguments = [*said, "cache=cache", *([] if folder is None else [f"data.root={real_data(folder)}"])]
    assert main(["plan", *arguments, "plan.budget=30s", "output=conf/plan/my.yaml"]) == 0
    assert (
        main(
            [
                "train",
                "--config-dir",
                "conf",
                "plan=my",
                *arguments,
                "folds.run=[0]",
                "tracking.enabled=false",
                "output=run",
            ]
        )
        == 0
    )
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["metrics"][metric]["mean"] > least
    with Path("run/fold_0/metrics.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 1 or losses[-1] < losses[0]
