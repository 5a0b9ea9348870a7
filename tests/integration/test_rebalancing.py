"""Rebalancing and repeats in a whole run: what is counted, recorded and averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.cli import main
from tests.integration.generated import hippocampus, shenzhen

EMPTY = ("hippocampus_001", "hippocampus_004", "hippocampus_007")
SHORT = ["schedule.budget=null", "schedule.epochs=2", "evaluation.resamples=50", "tracking.enabled=false"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten cases, three of them without foreground."""
    folder = tmp_path_factory.mktemp("hippocampus")
    hippocampus(folder / "data")
    for name in EMPTY:
        path = folder / "data" / "labelsTr" / f"{name}.nii.gz"
        mask = nib.load(path)  # type: ignore[attr-defined]
        nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), path)  # type: ignore[attr-defined]
    return folder


def run(output: Path, *overrides: str) -> dict[str, Any]:
    assert main([*SHORT, f"output={output}", *overrides]) == 0
    found: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return found


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_patches_that_fell_back_are_counted(data: Path, tmp_path: Path, workers: int) -> None:
    """Every patch is to be centred on foreground and every training case is drawn twice an epoch."""
    summary = run(
        tmp_path / "run", "experiment=hippocampus_unet", f"data.root={data / 'data'}", f"cache={data / 'cache'}",
        "sampling=foreground", "sampling.foreground_fraction=1.0", "sampling.patch_size=[16,24,16]",
        "sampling.batch_size=5", "sampling.batches_per_epoch=2", "folds.count=2", "folds.run=[0]", "folds.inner=2",
        "trainer.validate_cases=1", "evaluation.figures=false", f"trainer.workers={workers}",
        "loss.class_weights=inverse",
    )  # fmt: skip
    fold = json.loads((tmp_path / "run" / "folds.json").read_text())["folds"][0]
    empty = len(set(EMPTY) & set(fold["train"]["cases"]))
    assert empty > 0 and len(fold["train"]["cases"]) == 5
    assert sorted(case for part in fold["inner"] for case in part["validation"]["cases"]) == fold["train"]["cases"]
    history = pd.read_csv(tmp_path / "run" / "fold_0" / "metrics.csv")
    assert history["sampling_fallback"].tolist() == [2 * empty, 2 * empty]
    assert summary["folds"][0]["sampling_fallback"] == 4 * empty
    assert np.mean(summary["folds"][0]["class_weights"]) == pytest.approx(1)


def test_repeats_of_a_weighted_classifier(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shenzhen(tmp_path / "data")
    summary = run(
        tmp_path / "run", "experiment=tb_xray_cnn", f"data.root={tmp_path / 'data'}", f"cache={tmp_path / 'cache'}",
        "transforms.size=[32,32]", "sampling=weighted", "sampling.batch_size=4", "sampling.batches_per_epoch=1",
        "loss.class_weights=effective", "folds=repeated", "folds.count=2", "folds.repeats=2",
    )  # fmt: skip
    said = capfd.readouterr().out
    assert said.count("both give rare classes their full weight") == 1
    assert said.count("cases drawn by class weight: normal 1, tuberculosis 1") == 4
    assert [(fold["fold"], fold["repeat"]) for fold in summary["folds"]] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert (summary["repeats"], summary["n_cases"]) == (2, 12)
    cases = pd.read_csv(tmp_path / "run" / "cases.csv")
    assert cases.groupby("repeat")["case_id"].nunique().tolist() == [12, 12]
    assert len(cases) == 24
    right = (cases["predicted"] == cases["target"]).groupby(cases["repeat"]).mean()
    assert summary["metrics"]["accuracy"]["mean"] == pytest.approx(right.mean())
    assert (tmp_path / "run" / "figures" / "cases.png").exists()
