"""From folders and tables to cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image as Pillow

from pipeline.data.case import ArraySource, FileSource
from pipeline.data.readers import open_dataset, read_decathlon, read_medmnist, read_phantom, read_table
from pipeline.errors import UserError, UserErrors


def write_volume(path: Path, shape: tuple[int, ...] = (4, 4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)).to_filename(path)


def decathlon(root: Path, names: tuple[str, ...] = ("p1_a", "p1_b", "p2_a"), **changes: Any) -> Path:
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    for name in names:
        for folder in ("imagesTr", "labelsTr"):
            write_volume(root / folder / f"{name}.nii.gz")
    listing = {"name": "Lung", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "lung"}}
    listing |= {"numTraining": len(entries), "training": entries} | changes
    (root / "dataset.json").write_text(json.dumps({key: value for key, value in listing.items() if value is not None}))
    return root


def table(root: Path, text: str, name: str = "cases.csv") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root


def test_decathlon(tmp_path: Path) -> None:
    dataset = read_decathlon(root=decathlon(tmp_path), patient_pattern=r"^(p\d+)_")
    assert [case.case_id for case in dataset.cases] == ["p1_a", "p1_b", "p2_a"]
    assert dataset.patients == ("p1", "p2")
    assert dataset.modalities == ("CT",)
    assert dataset.cases[0].images == {"CT": FileSource(tmp_path / "imagesTr/p1_a.nii.gz")}
    assert dataset.cases[0].label == FileSource(tmp_path / "labelsTr/p1_a.nii.gz")
    assert dataset.labels is not None
    assert dataset.output_classes == ("background", "lung")
    assert (dataset.name, dataset.spatial_dims, dataset.channels, dataset.task) == ("Lung", 3, 1, "segmentation")
    assert read_decathlon(root=tmp_path.parent, task=tmp_path.name).cases == read_decathlon(root=tmp_path).cases
    renamed = read_decathlon(root=tmp_path, labels={0: "nothing", 1: "something"})
    assert renamed.output_classes == ("nothing", "something")


def test_decathlon_with_several_channels_in_one_file(tmp_path: Path) -> None:
    decathlon(tmp_path, modality={"0": "FLAIR", "1": "T1w"})
    write_volume(tmp_path / "imagesTr/p1_a.nii.gz", (4, 4, 4, 2))
    dataset = read_decathlon(root=tmp_path)
    assert (dataset.channels, dataset.modalities, dataset.spatial_dims) == (2, ("image",), 3)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"labels": None}, "declares no labels"),
        ({"labels": ["lung"]}, "no mapping"),
        ({"numTraining": 9}, "numTraining is 9.*entries is 3"),
        ({"training": [], "numTraining": 0}, "empty"),
        ({"training": None}, "no list `training`"),
        ({"training": ["a"], "numTraining": 1}, "entry 0"),
        ({"training": [{"image": "../a.nii", "label": "b.nii"}], "numTraining": 1}, "outside"),
        ({"training": [{"image": "a.nii", "label": "/etc/passwd"}], "numTraining": 1}, "/etc/passwd is an absolute"),
        ({"training": [{"image": "a.nii", "label": "C:\\x.nii"}], "numTraining": 1}, "absolute"),
        ({"training": [{"image": "a.txt", "label": "b.nii"}], "numTraining": 1}, "unknown image format"),
        ({"training": [{"image": "a.nii", "label": "b.nii"}] * 2, "numTraining": 2}, "case a is listed twice"),
        ({"modality": "CT"}, "modality"),
    ],
)
def test_decathlon_lists_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault) as caught:
        read_decathlon(root=decathlon(tmp_path, **changes))
    assert "dataset.json" in str(caught.value)


def test_decathlon_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "Task04_Hippocampus").mkdir()
    with pytest.raises(UserError, match="Task04_Hipocampus") as caught:
        read_decathlon(root=tmp_path / "Task04_Hipocampus")
    assert "did you mean" in caught.value.remedies[0]
    assert "Task04_Hippocampus" in caught.value.remedies[0]
    with pytest.raises(UserError, match=r"data\.root is not set"):
        read_decathlon(root=None)
    (tmp_path / "datasets.json").write_text("{}")
    with pytest.raises(UserError, match=r"did you mean datasets\.json"):
        read_decathlon(root=tmp_path)
    (tmp_path / "dataset.json").write_text('{"name": ')
    with pytest.raises(UserError, match="no valid JSON"):
        read_decathlon(root=tmp_path)
    with pytest.raises(UserError, match="task=classification"):
        read_decathlon(root=tmp_path, task_kind="classification")
    for pattern, fault in [("(", "no regular"), (r"p\d", "no group"), (r"^(x)", "does not match p1_a")]:
        with pytest.raises(UserError, match=fault):
            read_decathlon(root=decathlon(tmp_path / "d"), patient_pattern=pattern)


def test_download_leaves_a_data_set_that_is_there_and_names_unknown_tasks(tmp_path: Path) -> None:
    decathlon(tmp_path / "Task06_Lung")
    assert len(read_decathlon(root=tmp_path, task="Task06_Lung", download=True).cases) == 3
    with pytest.raises(UserError, match="Task06_Lungs") as caught:
        read_decathlon(root=tmp_path, task="Task06_Lungs", download=True)
    assert caught.value.remedies == ("did you mean Task06_Lung?",)


ROWS = "file,subject,hospital,tb\n001.png,A,north,0\n002.png,A,north,1\n003.png,B,south,1\n004.png,C,north,2\n"


def pictures(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for number in range(1, 5):
        Pillow.fromarray(np.full((5, 7), number, np.uint8)).save(root / f"images/00{number}.png")
    return root


def test_table_with_templates_names_and_kept_classes(tmp_path: Path) -> None:
    table(pictures(tmp_path), ROWS)
    columns = {"patient_id": "subject", "image": "images/{file}", "target": "tb", "site": "hospital"}
    names = {0: "normal", 1: "ill", "2": "other"}
    dataset = read_table(root=tmp_path, task_kind="classification", columns=columns, target_names=names)
    assert [case.case_id for case in dataset.cases] == ["001", "002", "003", "004"]
    assert dataset.cases[0].images == {"image": FileSource(tmp_path / "images/001.png")}
    assert [case.target for case in dataset.cases] == ["normal", "ill", "ill", "other"]
    assert dataset.cases[2].site == "south"
    assert (dataset.classes, dataset.spatial_dims, dataset.channels) == (("ill", "normal", "other"), 2, 1)
    assert dataset.notes == ()

    chosen = read_table(
        root=tmp_path,
        task_kind="classification",
        columns=columns,
        target_names=names,
        targets=["normal", "ill"],
        keep={"hospital": "north"},
    )
    assert chosen.classes == ("normal", "ill")
    assert [case.case_id for case in chosen.cases] == ["001", "002"]
    assert chosen.notes == (
        "1 of 4 rows dropped: data.keep.hospital=north",
        "1 cases of class other dropped: not in data.targets",
    )


def test_formats_of_tables_agree(tmp_path: Path) -> None:
    columns = {"patient_id": "subject", "image": "images/{file}", "target": "tb"}
    pictures(tmp_path)
    table(tmp_path, ROWS, "a.csv")
    table(tmp_path, "\ufeff" + ROWS.replace("\n", "\r\n"), "bom.csv")
    table(tmp_path, ROWS.replace(",", "\t"), "b.tsv")
    cells = [row.split(",") for row in ROWS.split()]
    columns_of = {name: [row[at] for row in cells[1:]] for at, name in enumerate(cells[0])}
    columns_of["tb"] = [float(value) for value in columns_of["tb"]]  # type: ignore[misc]
    pyarrow.parquet.write_table(pyarrow.table(columns_of), tmp_path / "c.parquet")
    cases = [
        read_table(root=tmp_path, task_kind="classification", columns=columns, table=name).cases
        for name in ("a.csv", "bom.csv", "b.tsv", "c.parquet")
    ]
    assert cases[0] == cases[1] == cases[2] == cases[3]
    with pytest.raises(UserError, match="holds 4 tables"):
        read_table(root=tmp_path, task_kind="classification", columns=columns)


def test_table_of_masks_with_folds(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_volume(tmp_path / f"{name}.nii.gz")
        write_volume(tmp_path / f"masks/{name}.nii.gz")
    text = "case_id,patient_id,image,label,fold,split\nx,1,x.nii.gz,masks/x.nii.gz,0,train\ny,2,y.nii.gz,,1,val\n"
    dataset = read_table(root=table(tmp_path, text), task_kind="segmentation", labels={255: "lung"})
    assert [case.fold for case in dataset.cases] == [0, 1]
    assert [case.split for case in dataset.cases] == ["train", "val"]
    assert dataset.cases[0].label == FileSource(tmp_path / "masks/x.nii.gz")
    assert dataset.cases[1].label is None
    assert (dataset.spatial_dims, dataset.output_classes) == (3, ("background", "lung"))
    with pytest.raises(UserError, match=r"data\.labels is not set"):
        read_table(root=tmp_path, task_kind="segmentation")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "organ"}, "training": [{}]}))
    assert read_table(root=tmp_path, task_kind="segmentation").output_classes == ("background", "organ")


GOOD = "case_id,patient_id,image,target\na,1,a.png,x\nb,2,b.png,y\n"


@pytest.mark.parametrize(
    ("text", "settings", "fault"),
    [
        (GOOD.replace("image", "imag"), {}, "no column 'image'"),
        (GOOD.replace("patient_id", "patient"), {}, "no column 'patient_id'"),
        (GOOD.replace("target", "tb"), {}, r"data\.columns\.target is not set"),
        (GOOD.replace(",", ";"), {}, "separated by ';'"),
        (GOOD.replace("b,2", "a,2"), {}, "case a is listed twice"),
        (GOOD.replace("b,2", "../b,2"), {}, "not allowed in a file name"),
        (GOOD.replace("b,2", "..,2"), {}, "not allowed in a file name"),
        (GOOD.replace("b,2", ",2"), {}, "case_id is missing"),
        (GOOD.replace("b,2", "b,"), {}, "patient_id of case b is missing"),
        (GOOD.replace("b.png", ""), {}, "image is missing"),
        (GOOD.replace("b.png", "../b.png"), {}, "outside"),
        (GOOD.replace("b.png", "/etc/passwd"), {}, "absolute"),
        (GOOD + "c,3\n", {}, "line 4 has 2 values"),
        (GOOD.replace("target", "image"), {}, "stands twice"),
        ("", {}, "empty"),
        ("case_id,patient_id,image,target\n", {}, "no rows"),
        (GOOD, {"targets": ["x", "z"]}, "no case of class 'z'"),
        (GOOD, {"targets": ["x", "x"]}, "stands twice"),
        (GOOD, {"target_names": {"x": "ill"}}, "target values y have no name"),
        (GOOD, {"keep": {"hospital": "north"}}, r"no column 'hospital' \(data\.keep\)"),
        (GOOD, {"keep": {"target": ["x", "q"]}}, "no row has target=q"),
        (GOOD, {"columns": {"imag": "image"}}, "did you mean image"),
        (GOOD, {"columns": {"image": "images/{fil}", "patient_id": None, "target": "target"}}, "no column 'fil'"),
        (GOOD, {"table": "case.csv"}, r"did you mean cases\.csv"),
        (GOOD, {"table": "../cases.csv"}, "outside"),
        (GOOD.replace("target", "fold"), {"columns": {"fold": "fold", "image": "image", "target": "fold"}}, "fold 'x'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_table(root=table(tmp_path, text), task_kind="classification", **settings)


def test_all_mistakes_are_told_together_and_encoding_is_named(tmp_path: Path) -> None:
    text = GOOD.replace("a.png", "../a.png").replace("b.png", "/b.png")
    with pytest.raises(UserErrors) as caught:
        read_table(root=table(tmp_path, text), task_kind="classification")
    assert len(caught.value.errors) == 2
    (tmp_path / "cases.csv").write_bytes(GOOD.replace("x", "ü").encode("latin-1"))
    with pytest.raises(UserError, match="not in UTF-8"):
        read_table(root=tmp_path, task_kind="classification")


def npz(path: Path, **changes: np.ndarray) -> Path:
    arrays = {"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.array([[0], [1], [1]])}
    arrays |= {"val_images": np.zeros((1, 8, 8), np.uint8), "val_labels": np.array([1])}
    np.savez(path, **(arrays | changes))
    return path


def test_medmnist(tmp_path: Path) -> None:
    npz(tmp_path / "breast.npz")
    dataset = read_medmnist(root=tmp_path, target_names={0: "malignant", 1: "benign"})
    assert [case.case_id for case in dataset.cases] == ["train_00000", "train_00001", "train_00002", "val_00000"]
    assert dataset.cases[1].images == {"image": ArraySource(tmp_path / "breast.npz", "train_images", 1)}
    assert [case.target for case in dataset.cases] == ["malignant", "benign", "benign", "benign"]
    assert [case.split for case in dataset.cases] == ["train"] * 3 + ["val"]
    assert (dataset.classes, dataset.spatial_dims) == (("benign", "malignant"), 2)
    only = read_medmnist(root=tmp_path, npz="breast.npz", splits=["train"], targets=["1"])
    assert [case.case_id for case in only.cases] == ["train_00001", "train_00002"]
    with pytest.raises(UserError, match="has no split test"):
        read_medmnist(root=tmp_path, splits=["train", "test"])
    npz(tmp_path / "other.npz", train_labels=np.zeros((3, 14)))
    with pytest.raises(UserError, match=r"holds breast\.npz, other\.npz"):
        read_medmnist(root=tmp_path)
    with pytest.raises(UserError, match="one whole number per image"):
        read_medmnist(root=tmp_path, npz="other.npz")
    with pytest.raises(UserError, match="task=classification"):
        read_medmnist(root=tmp_path, task_kind="segmentation", npz="breast.npz")


def test_phantom_is_written_once_and_read_as_a_decathlon_folder(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "patients": 2,
        "second_scan_rate": 1.0,
        "spacing_mm": [6.5, 6.5],
        "slice_mm": [7, 7],
        "tumour_diameter_mm": [24, 55],
    }
    settings["tumour_diameter_mm"] = [20, 50]
    dataset = read_phantom(cache=tmp_path, phantom=settings)
    assert len(dataset.cases) == 4
    assert len(dataset.patients) == 2
    assert dataset.output_classes == ("background", "lung", "tumour")
    written = {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*")}
    assert read_phantom(cache=tmp_path, phantom=settings) == dataset
    assert {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*")} == written
    assert read_phantom(cache=tmp_path, phantom=settings | {"seed": 1}).root != dataset.root


def test_open_dataset_takes_the_keys_of_its_format_alone(tmp_path: Path) -> None:
    decathlon(tmp_path)
    unused = {"table": None, "columns": None, "phantom": None, "targets": None, "download": False}
    dataset = open_dataset({"format": "decathlon", "root": str(tmp_path), **unused}, task_kind="segmentation")
    assert dataset.cases == read_decathlon(root=tmp_path).cases
    with pytest.raises(UserError, match=r"data\.table does not apply to data\.format=decathlon"):
        open_dataset({"format": "decathlon", "root": tmp_path, "table": "a.csv"}, task_kind="segmentation")
    with pytest.raises(UserError, match="decatlon") as caught:
        open_dataset({"format": "decatlon"}, task_kind="segmentation")
    assert caught.value.remedies == ("did you mean decathlon?",)


def test_real_folders(real_data: Callable[[str], Path]) -> None:
    assert len(read_decathlon(root=real_data("Task04_Hippocampus")).cases) == 200
    lidc = read_table(
        root=real_data("lidc_nodules"),
        task_kind="classification",
        columns={"case_id": "name", "patient_id": "patient", "image": "images/{name}.nii.gz", "target": "class"},
        targets=["benign", "malignant"],
    )
    assert (len(lidc.cases), lidc.classes, lidc.spatial_dims) == (211, ("benign", "malignant"), 3)
    xray = read_table(
        root=real_data("shenzhen_xray"),
        task_kind="segmentation",
        labels={0: "background", 255: "lung"},
        columns={"patient_id": None, "image": "images/{file}", "label": "masks/{file}", "site": "site"},
        keep={"site": "shenzhen"},
    )
    assert (len(xray.cases), len(xray.patients), xray.spatial_dims) == (566, 566, 2)
    assert len(read_medmnist(root=real_data("medmnist_2d"), npz="pneumoniamnist.npz").cases) == 5856
