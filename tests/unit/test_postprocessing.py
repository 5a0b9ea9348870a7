"""The decision on pooled Dice, worked out by hand, and what it does to the files and the table of a run."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.data.case import Case, FileSource
from pipeline.data.labels import Labels
from pipeline.errors import UserError
from pipeline.evaluation.components import FOREGROUND
from pipeline.evaluation.postprocessing import in_words
from pipeline.prediction.cases import score_segmentation
from pipeline.prediction.postprocessing import RAW_FOLDER, Postprocessing, postprocess_run

LABELS = Labels({0: "background", 1: "lung", 2: "tumour"})


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.uint8), np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


def empty() -> np.ndarray:
    return np.zeros((10, 10, 4), np.uint8)


def run(folder: Path, pairs: list[tuple[np.ndarray, np.ndarray]], labels: Labels = LABELS, **given: object):
    """Truth and prediction of each case -> table before, table after, what was decided; case ``c<n>`` is in fold n."""
    cases, paths, rows = {}, {}, []
    for number, (truth, prediction) in enumerate(pairs):
        name = f"c{number}"
        source = FileSource(write(folder / "data" / f"{name}.nii.gz", truth))
        cases[name] = Case(name, name, {"CT": source}, label=source)
        paths[number, name] = write(folder / f"fold_{number}" / "predictions" / f"{name}.nii.gz", prediction)
        rows += score_segmentation(cases[name], prediction, np.diag([1.0, 1.0, 2.0, 1.0]), labels, 1.0, number)
    table = pd.DataFrame(rows)
    settings = {"connectivity": "faces", "tolerance_mm": 1.0, "modalities": ["CT"], "of_folds": len(pairs)} | given
    after, content = postprocess_run(table, paths, cases, labels, workers=2, output=folder, **settings)  # type: ignore[arg-type]
    assert json.loads((folder / "postprocess.json").read_text()) == content
    return table, after, content


def boxes(lung: int, tumour: int = 0, stray: int = 0, stray_class: int = 1) -> np.ndarray:
    """A lung of ``lung`` voxels in a row, a tumour attached to it, a stray piece apart."""
    array = empty()
    array[:lung, 0, 0] = 1
    array[:tumour, 1, 0] = 2
    array[:stray, 8, 3] = stray_class
    return array


def test_strays_are_removed_where_dice_rises(tmp_path: Path) -> None:
    truth = boxes(8, 4)
    table, after, content = run(tmp_path, [(truth, boxes(8, 4, stray=4)), (truth, boxes(8, 4))])
    assert content["kept"] == [FOREGROUND]
    first = content["steps"][0]
    lung = [(2 * 8 / 20 + 1) / 2, 1.0]
    assert first["dice_per_class"]["lung"] == pytest.approx(lung)
    assert first["dice"] == pytest.approx([(lung[0] + 1) / 2, 1.0])
    assert first["predictions_changed"] == 1
    assert content["decided_on"] == {
        "folds": [0, 1], "of_folds": 2, "cases": 2, "predictions": 2, "with_several_components": 1,
    }  # fmt: skip
    assert table["dice"].min() == pytest.approx(0.8)
    assert list(after["dice"]) == [1.0] * 4 and list(after["hd95_mm"]) == [0.0] * 4
    assert list(after.columns) == list(table.columns)
    stored = np.asarray(nib.load(tmp_path / "fold_0" / "predictions" / "c0.nii.gz").dataobj)
    raw = np.asarray(nib.load(tmp_path / "fold_0" / RAW_FOLDER / "c0.nii.gz").dataobj)
    assert np.array_equal(stored, truth) and np.array_equal(raw, boxes(8, 4, stray=4))
    assert not (tmp_path / "fold_1" / RAW_FOLDER).exists()
    assert in_words(content) == (
        "postprocessing: only the largest component of all foreground; Dice 0.9500 -> 1.0000 "
        "(decided on 2 predictions out of fold)"
    )


def test_a_class_that_has_two_parts_keeps_them(tmp_path: Path) -> None:
    """Two lungs in truth: the step that would remove one of them is refused, that of the tumour is kept."""
    truth = boxes(8, 4, stray=6)
    prediction = boxes(8, 4, stray=6)
    prediction[9, 4, 2] = 2
    _, after, content = run(tmp_path, [(truth, prediction)], of_folds=5)
    assert content["kept"] == ["tumour"]
    assert [step["kept"] for step in content["steps"]] == [False, False, True]
    assert content["steps"][2]["dice"] == pytest.approx([(1 + 8 / 9) / 2, 1.0])
    assert set(after["dice"]) == {1.0}
    assert "of 1 of 5 folds only" in in_words(content)
    again = Postprocessing.read(tmp_path / "postprocess.json", LABELS)
    assert np.array_equal(again(prediction), truth)


def test_a_gain_that_costs_another_class_is_refused(tmp_path: Path) -> None:
    """Removing all but the largest foreground helps the lung by much, and loses a tumour that lies apart."""
    truth = boxes(8, stray=2, stray_class=2)
    prediction = boxes(8, stray=2, stray_class=2)
    prediction[:9, 5, 2] = 1  # larger than the lung: the lung would go
    other = (boxes(8), boxes(8, stray=7))
    _, _, content = run(tmp_path, [(truth, prediction), other, other, other])
    foreground = content["steps"][0]
    assert foreground["dice_per_class"]["tumour"] == [1.0, 0.0]
    assert not foreground["kept"] and FOREGROUND not in content["kept"]


def test_a_false_positive_elsewhere_becomes_a_true_negative(tmp_path: Path) -> None:
    truth, prediction = boxes(8), boxes(8, stray=2, stray_class=2)
    also = (boxes(8, 4), boxes(8, 4))
    _, after, content = run(tmp_path, [(truth, prediction), also])
    assert content["kept"] == [FOREGROUND]
    assert content["steps"][0]["dice_per_class"]["tumour"] == [0.5, 1.0]
    assert list(after.loc[after["class"] == "tumour", "empty"]) == ["both", "neither"]


def test_repeats_of_a_case_count_once(tmp_path: Path) -> None:
    """One case predicted in two folds: its Dice is the mean of both, and does not weigh twice."""
    truth = boxes(8)
    pairs = [(truth, boxes(8, stray=4)), (truth, boxes(8, stray=4)), (truth, boxes(4))]
    cases, paths, rows = {}, {}, []
    for number, name in enumerate(("a", "a", "b")):
        source = FileSource(write(tmp_path / f"{name}.nii.gz", truth))
        cases[name] = Case(name, name, {"CT": source}, label=source)
        paths[number, name] = write(tmp_path / f"fold_{number}" / "predictions" / "x.nii.gz", pairs[number][1])
        rows += score_segmentation(cases[name], pairs[number][1], np.eye(4), Labels({1: "lung"}), 1.0, number)
    _, content = postprocess_run(
        pd.DataFrame(rows), paths, cases, Labels({1: "lung"}), connectivity="corners", tolerance_mm=1.0,
        modalities=["CT"], of_folds=3, workers=1, output=tmp_path,
    )  # fmt: skip
    assert [step["largest_of"] for step in content["steps"]] == [FOREGROUND]
    assert content["steps"][0]["dice"] == pytest.approx([(0.8 + 8 / 12) / 2, (1 + 8 / 12) / 2])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "postprocess.json"
    nothing = Postprocessing.read(path, LABELS)
    assert nothing(boxes(8, stray=2)).sum() == 10
    for text, said in (("{", "not readable"), ('{"kept": ["liver"], "connectivity": "faces"}', "no class liver")):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            Postprocessing.read(path, LABELS)
