"""Training on what is incomplete: modalities, targets, masks that annotate some classes; regions and ignored voxels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.cli import main
from tests.integration.generated import EXPERIMENTS, hippocampus, medmnist, sarcoma

TINY = [
    "trainer.max_steps=2",
    "schedule.budget=null",
    "schedule.epochs=1",
    "sampling.batch_size=2",
    "sampling.batches_per_epoch=2",
    "evaluation.figures=false",
    "evaluation.resamples=20",
    "folds.count=3",
    "folds.run=[0]",
    "tracking.enabled=false",
]


def multimodal(folder: Path, *overrides: str) -> int:
    return main(
        [
            "experiment=sarcoma_multimodal",
            *EXPERIMENTS["sarcoma_multimodal"][1],
            *TINY,
            f"data.root={folder / 'data'}",
            f"cache={folder / 'cache'}",
            *overrides,
        ]
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``dropout``: trained with modality dropout; ``complete``: without, on the complete cases."""
    folder = tmp_path_factory.mktemp("multimodal")
    sarcoma(folder / "data")
    assert multimodal(folder, f"output={folder / 'dropout'}") == 0
    dropping = ["data.missing.modality=drop", "sampling.modality_dropout=0"]
    assert multimodal(folder, f"output={folder / 'complete'}", *dropping) == 0
    return folder


def test_a_missing_modality_is_an_error_unless_said_otherwise(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multimodal(runs, f"output={runs / 'none'}", "data.missing.modality=error") == 2
    said = capsys.readouterr()
    assert "STS_008 has no PET" in said.out + said.err


def test_dropped_cases_are_gone_and_counted(runs: Path) -> None:
    folds = json.loads((runs / "complete" / "folds.json").read_text())["folds"]
    used = {case for fold in folds for part in ("train", "validation") for case in fold[part]["cases"]}
    assert used == {f"STS_{number:03d}" for number in range(8)}


def test_prediction_without_a_modality_needs_a_model_that_learned_it(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in ("STS_000", "STS_001"):
        shutil.copytree(runs / "data" / case, tmp_path / "in" / case)
    (tmp_path / "in" / "STS_001" / "MR_T1_image.nii.gz").unlink()
    inputs = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    assert main(["predict", f"run={runs / 'complete'}", *inputs]) == 2
    said = capsys.readouterr().err
    assert "STS_001: no MR" in said and "modality_dropout" in said and "Traceback" not in said

    assert main(["predict", f"run={runs / 'dropout'}", *inputs]) == 0
    for case in ("STS_000", "STS_001"):
        mask = nib.load(tmp_path / "out" / f"{case}.nii.gz")
        truth = nib.load(runs / "data" / case / "CT_mask.nii.gz")
        assert mask.shape == truth.shape
        np.testing.assert_allclose(mask.affine, truth.affine)


def test_modalities_may_stand_in_folders_of_their_own(runs: Path, tmp_path: Path) -> None:
    for modality, file in (("CT", "CT"), ("MR", "MR_T1"), ("PET", "PET")):
        (tmp_path / "in" / modality).mkdir(parents=True)
        shutil.copy(runs / "data" / "STS_000" / f"{file}_image.nii.gz", tmp_path / "in" / modality / "new.nii.gz")
    run = runs / "complete"
    assert main(["predict", f"run={run}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "new.nii.gz").is_file()


def test_regions_ignored_voxels_and_partly_annotated_cases_train_and_are_scored(tmp_path: Path) -> None:
    hippocampus(tmp_path / "data")
    root = tmp_path / "data"
    rows = ["case_id,patient_id,image,label,labels_present"]
    for number, path in enumerate(sorted((root / "labelsTr").iterdir())):
        mask = nib.load(path)
        array = np.asarray(mask.dataobj).copy()
        array[:3] = 7  # not annotated by anybody
        present = "whole;tail"
        if number % 3 == 0:
            present = "whole"
        nib.save(nib.Nifti1Image(array, mask.affine), path)
        rows.append(f"{number},{number},imagesTr/{path.name},labelsTr/{path.name},{present}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")
    columns = "{case_id: case_id, patient_id: patient_id, image: image, label: label, labels_present: labels_present}"
    overrides = [
        "experiment=hippocampus_unet",
        *EXPERIMENTS["hippocampus_unet"][1],
        *TINY,
        "data=table",
        "data.table=cases.csv",
        f"data.columns={columns}",
        "data.labels={0: background, 1: head, 2: tail}",
        "data.regions={whole: [1, 2], tail: [2]}",
        "data.ignore=7",
        f"data.root={root}",
        f"cache={tmp_path / 'cache'}",
        f"output={tmp_path / 'run'}",
    ]
    assert main(overrides) == 0
    cases = pd.read_csv(tmp_path / "run" / "cases.csv")
    scored = cases.groupby("case_id")["class"].agg(set)
    for case_id, classes in scored.items():
        assert classes == ({"whole"} if int(str(case_id)) % 3 == 0 else {"whole", "tail"})
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["metrics"]["dice"]["per_class"]) == {"whole", "tail"}
    out = tmp_path / "out"
    assert main(["predict", f"run={tmp_path / 'run'}", f"input={root / 'imagesTr'}", f"output={out}"]) == 0
    found = set(np.unique(np.asarray(nib.load(next(out.iterdir())).dataobj)).tolist())
    assert found <= {0, 1, 2}


def test_cases_without_target_are_trained_on_and_not_evaluated(tmp_path: Path) -> None:
    medmnist(tmp_path / "data")
    arrays = np.load(tmp_path / "data" / "pneumoniamnist.npz")
    images = np.concatenate([arrays["train_images"], arrays["val_images"]])
    from PIL import Image

    rows = ["case_id,patient_id,image,target"]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "data" / f"{number}.png")
        rows.append(f"{number},{number},{number}.png,{'' if number % 8 == 0 else ('ill', 'well')[number % 2]}")
    (tmp_path / "data" / "cases.csv").write_text("\n".join(rows) + "\n")
    overrides = [
        "experiment=pneumonia_cnn",
        *TINY,
        "data=table",
        "data.table=cases.csv",
        "data.columns={case_id: case_id, patient_id: patient_id, image: image, target: target}",
        "data.targets=null",
        "data.target_names=null",
        "data.npz=null",
        "data.splits=null",
        f"data.root={tmp_path / 'data'}",
        f"cache={tmp_path / 'cache'}",
    ]
    assert main([*overrides, f"output={tmp_path / 'refused'}"]) == 2
    assert main([*overrides, f"output={tmp_path / 'run'}", "data.missing.target=impute"]) == 0
    cases = pd.read_csv(tmp_path / "run" / "cases.csv")
    assert not (cases["case_id"] % 8 == 0).any() and len(cases) > 5
    folds = json.loads((tmp_path / "run" / "folds.json").read_text())["folds"]
    assert any(int(case) % 8 == 0 for case in folds[0]["train"]["cases"])
