"""Prediction with a finished run: file names, grids, values, scores, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.data.labels import Labels
from pipeline.evaluation.components import LargestComponents
from tests.integration.generated import EXPERIMENTS, hippocampus, shenzhen

TINY = [
    "trainer.max_steps=2",
    "schedule.budget=null",
    "schedule.epochs=1",
    "sampling.batch_size=2",
    "evaluation.figures=false",
    "sampling.batches_per_epoch=2",
    "folds.count=3",
    "folds.run=[0,1]",
    "evaluation.resamples=20",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of three tiny trainings; the first one is also recorded in MLflow."""
    folder = tmp_path_factory.mktemp("trained")
    for name, write in (("hippocampus_unet", hippocampus), ("lung_xray_unet", shenzhen), ("tb_xray_cnn", shenzhen)):
        write(folder / f"{name}_data")
        recorded = (
            [f"tracking.uri=sqlite:///{folder}/mlflow.db"] if name == "hippocampus_unet" else ["tracking.enabled=false"]
        )
        overrides = [
            f"experiment={name}",
            *EXPERIMENTS[name][1],
            *TINY,
            *recorded,
            f"data.root={folder / f'{name}_data'}",
            f"cache={folder / 'cache'}",
            f"output={folder / name}",
        ]
        assert main(overrides) == 0
    return {name: folder / name for name in ("hippocampus_unet", "lung_xray_unet", "tb_xray_cnn")}


def test_masks_of_volumes(trained: dict[str, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[0, -1.1, 0, 5], [0.9, 0, 0, -3], [0, 0, 2.2, 40], [0, 0, 0, 1.0]])
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(rng.normal(60, 10, (31, 19, 14)).astype(np.int16), affine), tmp_path / "in" / "new.nii.gz")
    assert (
        main(
            ["predict", f"run={trained['hippocampus_unet']}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
        )
        == 0
    )
    mask = nib.load(tmp_path / "out" / "new.nii.gz")
    assert mask.shape == (31, 19, 14)
    assert np.allclose(mask.affine, affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_a_run_that_did_not_end_says_so(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained["hippocampus_unet"], tmp_path / "run")
    image = sorted((trained["hippocampus_unet"].parent / "hippocampus_unet_data" / "imagesTr").iterdir())[0]
    for number, ended in enumerate((True, False)):
        if not ended:
            (run / "summary.json").unlink()
        assert main(["predict", f"run={run}", f"input={image}", f"output={tmp_path / str(number)}"]) == 0
        assert ("its training did not end" in capsys.readouterr().out) is not ended


def test_mlflow_run_id_gives_the_same_masks(trained: dict[str, Path], tmp_path: Path) -> None:
    run = trained["hippocampus_unet"]
    ids = json.loads((run / "summary.json").read_text())["mlflow"]
    image = sorted((run.parent / "hippocampus_unet_data" / "imagesTr").iterdir())[0]
    for name, source in (("folder", [f"run={run}"]), ("id", [f"run={ids['run_id']}", f"tracking.uri={ids['uri']}"])):
        assert main(["predict", *source, f"input={image}", f"output={tmp_path / name}"]) == 0
    hidden = run.with_name("hidden")
    run.rename(hidden)  # now MLflow's artifacts are all there is
    try:
        source = [f"run={ids['run_id']}", f"tracking.uri={ids['uri']}"]
        assert main(["predict", *source, f"input={image}", f"output={tmp_path / 'artifacts'}"]) == 0
    finally:
        hidden.rename(run)
    drift = [(tmp_path / name / "drift.json").read_text() for name in ("folder", "id", "artifacts")]
    assert drift[0] == drift[1] == drift[2]
    assert json.loads(drift[0])["findings"] == []
    masks = [np.asarray(nib.load(tmp_path / name / image.name).dataobj) for name in ("folder", "id", "artifacts")]
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])


def test_images_unlike_the_training_data_are_told_of(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained["lung_xray_unet"]
    assert json.loads((run / "fingerprint.json").read_text())["overall"]["cases"] == 12
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.normal(20, 2, (120, 144)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"dark_{number}.png")
    arguments = ["predict", f"run={run}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    assert main(arguments) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: drift: ")]
    report = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert report["inputs"] == 6
    assert {finding["rule"] for finding in report["findings"]} == {"size", "intensity"}
    assert said == [f"warning: drift: {line}" for line in report["lines"]]
    assert len(said) == 2
    assert main([*arguments, "drift.enabled=false"]) == 0
    assert "drift" not in capsys.readouterr().out
    assert main([*arguments, "drift.central=[95,5]"]) == 2
    assert "the first percentile must be below the second" in capsys.readouterr().err


def test_pictures_keep_size_and_declared_values_and_are_scored(trained: dict[str, Path], tmp_path: Path) -> None:
    data = trained["lung_xray_unet"].parent / "lung_xray_unet_data"
    out = tmp_path / "out"
    run = ["predict", f"run={trained['lung_xray_unet']}", f"input={data / 'images'}", f"output={out}"]
    assert main([*run, f"labels={data / 'masks'}"]) == 0
    pictures = sorted((data / "images").iterdir())
    assert sorted(path.name for path in out.glob("*.png")) == [path.name for path in pictures]
    mask = np.asarray(Image.open(out / pictures[0].name))
    assert mask.shape == (40, 48)
    assert set(np.unique(mask)) <= {0, 255}
    scores = json.loads((out / "scores.json").read_text())
    dices = []
    for picture in pictures:
        predicted, truth = (
            np.asarray(Image.open(out / picture.name)) > 0,
            np.asarray(Image.open(data / "masks" / picture.name)) > 0,
        )
        dices.append(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
    assert scores["metrics"]["dice"]["mean"] == pytest.approx(np.mean(dices))


def test_two_images_of_one_name_are_refused(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both masks would be a.png, and the first would be lost."""
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "in" / name)
    command = ["predict", f"run={trained['lung_xray_unet']}", f"output={tmp_path / 'out'}"]
    assert main([*command, f"input={tmp_path / 'in'}"]) == 2
    assert "a.png: a.jpg beside it is the case a already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_class_probabilities(trained: dict[str, Path], tmp_path: Path) -> None:
    data = trained["tb_xray_cnn"].parent / "tb_xray_cnn_data"
    truth = pd.read_csv(data / "labels.csv")[["file"]]
    truth["target"] = ["tuberculosis" if "_1.png" in name else "normal" for name in truth["file"]]
    truth.to_csv(tmp_path / "truth.csv", index=False)
    run = ["predict", f"run={trained['tb_xray_cnn']}", f"input={data / 'images'}", f"output={tmp_path / 'out'}"]
    assert main([*run, f"labels={tmp_path / 'truth.csv'}"]) == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table.columns) == ["file", "normal", "tuberculosis"]
    assert np.allclose(table[["normal", "tuberculosis"]].sum(axis=1), 1)
    assert 0 <= json.loads((tmp_path / "out" / "scores.json").read_text())["metrics"]["auroc"]["mean"] <= 1


def test_postprocessing_is_decided_recorded_and_applied(trained: dict[str, Path], tmp_path: Path) -> None:
    """Masks of an untrained network have many components: what the run decided is what prediction does."""
    run = trained["hippocampus_unet"]
    content = json.loads((run / "postprocess.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert content["decided_on"]["folds"] == [0, 1] and content["decided_on"]["of_folds"] == 3
    assert [step["largest_of"] for step in content["steps"]] == ["all foreground", "Anterior", "Posterior"]
    assert summary["postprocessing"]["kept"] == content["kept"]
    table = pd.read_csv(run / "cases.csv")
    assert table.groupby("class")["dice"].mean().mean() == pytest.approx(summary["metrics"]["dice"]["mean"])
    path = run / "postprocess.json"
    before = path.read_text()
    image = sorted((run.parent / "hippocampus_unet_data" / "imagesTr").iterdir())[0]
    masks = {}
    try:
        path.write_text(json.dumps({"kept": ["all foreground", "Anterior"], "connectivity": "corners"}))
        for name, choice in (("on", "true"), ("off", "false")):
            given = [f"run={run}", f"input={image}", f"output={tmp_path / name}", f"postprocess={choice}"]
            assert main(["predict", *given]) == 0
            masks[name] = np.asarray(nib.load(tmp_path / name / image.name).dataobj)
    finally:
        path.write_text(before)
    labels = Labels({0: "background", 1: "Anterior", 2: "Posterior"})
    expected = LargestComponents(labels, "corners")(masks["off"].astype(np.uint8), ["all foreground", "Anterior"])
    assert np.array_equal(masks["on"], expected)


def test_a_bound_on_memory_that_cannot_be_kept_is_told(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained["lung_xray_unet"]
    images = run.parent / "lung_xray_unet_data" / "images"
    given = [f"run={run}", f"input={images}", f"output={tmp_path / 'out'}", "memory_gb=1e-6"]
    assert main(["predict", *given]) == 2
    said = capsys.readouterr().err
    assert "inference.memory_gb=1e-06: predicting 32x32 voxels, 2 classes, with 2 network(s) needs" in said
    assert "Traceback" not in said


def test_out_of_fold_predictions_are_those_of_the_checkpoint(trained: dict[str, Path], tmp_path: Path) -> None:
    run = trained["hippocampus_unet"]
    case = json.loads((run / "folds.json").read_text())["folds"][1]["validation"]["cases"][0]
    image = run.parent / "hippocampus_unet_data" / "imagesTr" / f"{case}.nii.gz"
    assert main(["predict", f"run={run}", "ensemble=[1]", f"input={image}", f"output={tmp_path}"]) == 0
    again = np.asarray(nib.load(tmp_path / image.name).dataobj)
    recorded = np.asarray(nib.load(run / "fold_1" / "predictions" / image.name).dataobj)
    assert np.array_equal(again, recorded)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("input=nowhere", "input=nowhere: no such file or folder"),
        ("run=nowhere/run", "run=nowhere/run: no such folder"),
        ("ensemble=[2]", "fold 2 was not trained"),
        ("labels=nowhere", "labels=nowhere: no such file or folder"),
    ],
)
def test_mistakes(
    trained: dict[str, Path], tmp_path: Path, override: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained["lung_xray_unet"]
    given = {"run": run, "input": run.parent / "lung_xray_unet_data" / "images", "output": tmp_path / "out"}
    key = override.partition("=")[0]
    assert main(["predict", *(f"{name}={value}" for name, value in given.items() if name != key), override]) == 2
    assert said in capsys.readouterr().err


def test_a_changed_checkpoint_is_refused(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained["tb_xray_cnn"]
    path = run / "fold_1" / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[:-7] + b"changed")
    try:
        images = run.parent / "tb_xray_cnn_data" / "images"
        assert main(["predict", f"run={run}", f"input={images}", f"output={tmp_path / 'out'}"]) == 2
    finally:
        path.write_bytes(content)
    assert "last.ckpt: its sha256 is not the recorded one" in capsys.readouterr().err
