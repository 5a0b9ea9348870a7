"""Tables with several modalities, partial annotations, and paths that leave the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pipeline.data.case import FileSource
from pipeline.data.integrity import check_dataset
from pipeline.data.readers import open_dataset, read_table
from pipeline.data.readers.table import class_names
from pipeline.errors import UserError

LABELS = {0: "background", 1: "liver", 2: "kidney"}
HEAD = "case_id,patient_id,image:ct,image:pet,label\n"
TABLE = HEAD + "a,1,a_ct.nii.gz,a_pet.nii.gz,a_mask.nii.gz\nb,2,b_ct.nii.gz,,b_mask.nii.gz\n"


def volume(path: Path) -> FileSource:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((6, 6, 6), np.uint8)
    if "mask" in path.name:
        array[2:4] = 1
    else:
        array[:] = np.random.default_rng(len(str(path))).integers(0, 200, array.shape)
    nib.Nifti1Image(array, np.eye(4)).to_filename(path)
    return FileSource(path)


def folder(root: Path, text: str = TABLE, name: str = "cases.csv") -> Path:
    for file in ("a_ct", "a_pet", "a_mask", "b_ct", "b_mask"):
        volume(root / f"{file}.nii.gz")
    (root / name).write_text(text)
    return root


def read(root: Path, **settings: Any) -> Any:
    return read_table(root=root, **{"task_kind": "segmentation", "labels": LABELS} | settings)


def test_columns_of_modalities_are_found_and_an_empty_cell_is_a_missing_one(tmp_path: Path) -> None:
    dataset = read(folder(tmp_path))
    assert dataset.modalities == ("ct", "pet")
    assert (dataset.channels, dataset.spatial_dims) == (2, 3)
    assert dict(dataset.cases[0].images) == {
        "ct": FileSource(tmp_path / "a_ct.nii.gz"),
        "pet": FileSource(tmp_path / "a_pet.nii.gz"),
    }
    assert list(dataset.cases[1].images) == ["ct"]
    shipped = {"case_id": "case_id", "patient_id": "patient_id", "image": "image", "label": "label", "site": None}
    assert read(tmp_path, columns=shipped).cases == dataset.cases  # of conf/data/table.yaml


def test_templates_and_the_order_of_modalities(tmp_path: Path) -> None:
    text = "name,pet\na,a_pet\nb,\n"
    folder(tmp_path, text)
    columns = {
        "case_id": "name",
        "image:pet": "{pet}.nii.gz",
        "image:ct": "{name}_ct.nii.gz",
        "label": "{name}_mask.nii.gz",
    }
    dataset = read(tmp_path, columns=columns)
    assert dataset.modalities == ("pet", "ct")
    assert [list(case.images) for case in dataset.cases] == [["pet", "ct"], ["ct"]]
    (tmp_path / "b_ct.nii.gz").unlink()  # configured but absent: never a missing modality in silence
    dataset = read(tmp_path, columns=columns)
    assert dict(dataset.cases[1].images) == {"ct": FileSource(tmp_path / "b_ct.nii.gz")}
    assert any("b_ct.nii.gz" in fault.file for fault in check_dataset(dataset).errors)


@pytest.mark.parametrize(
    ("text", "columns", "fault"),
    [
        (TABLE.replace("image:pet", "image"), None, "one image and several modalities"),
        (TABLE, {"image": "image:ct", "image:pet": "image:pet", "patient_id": "patient_id"}, "one image and several"),
        (TABLE, {"image:mr": "mr", "label": "label"}, r"no column 'mr' \(data\.columns\.image:mr\)"),
        (TABLE, {"image:": "image:ct", "label": "label"}, "unknown property"),
        (TABLE, {"imag:ct": "image:ct", "label": "label"}, "unknown property"),
        (TABLE.replace("b_ct.nii.gz", ""), None, "image is missing"),
        (TABLE.replace("image:ct", "ct").replace("image:pet", "pet"), None, "no column 'image'"),
        (TABLE.replace("b_ct", "../b_ct"), None, "image:ct: .*outside"),
        (TABLE.replace("case_id", "other").replace("a_ct.nii.gz", ""), None, "has no ct and so no name"),
    ],
)
def test_tables_of_modalities_that_cannot_be_used(
    tmp_path: Path, text: str, columns: dict[str, str] | None, fault: str
) -> None:
    with pytest.raises(UserError, match=fault):
        read(folder(tmp_path, text), columns=columns)


def test_one_image_may_be_chosen_beside_modalities(tmp_path: Path) -> None:
    folder(tmp_path)
    columns = {"case_id": "case_id", "image": "image:ct", "label": "label"}
    assert read(tmp_path, columns=columns).modalities == ("image",)
    assert read(tmp_path, columns={**columns, "image": None}).modalities == ("ct", "pet")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("liver", ("liver",)),
        ("liver;kidney", ("liver", "kidney")),
        ("liver | kidney", ("liver", "kidney")),
        ("liver, kidney,", ("liver", "kidney")),
        ("lobe, left;lobe, right", ("lobe, left", "lobe, right")),
        (None, None),
    ],
)
def test_names_in_a_cell(text: str | None, names: tuple[str, ...] | None) -> None:
    assert class_names(text) == names


def test_annotated_classes(tmp_path: Path) -> None:
    text = (
        'case_id,image,label,labels_present\na,a_ct.nii.gz,a_mask.nii.gz,"liver,kidney"\nb,b_ct.nii.gz,b_mask.nii.gz,\n'
    )
    columns = {"case_id": "case_id", "image": "image", "label": "label", "labels_present": "labels_present"}
    dataset = read(folder(tmp_path, text), columns=columns)
    assert [case.labels_present for case in dataset.cases] == [("liver", "kidney"), None]
    rows = {"case_id": ["a", "b"], "image": ["a_ct.nii.gz", "b_ct.nii.gz"], "label": ["a_mask.nii.gz", "b_mask.nii.gz"]}
    rows["labels_present"] = [["liver", "kidney"], None]  # type: ignore[list-item]
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "cases.parquet")
    assert read(tmp_path, columns=columns, table="cases.parquet").cases == dataset.cases
    (tmp_path / "cases.csv").write_text(text.replace("liver,kidney", "lung"))
    dataset = read(tmp_path, columns=columns, table="cases.csv")
    assert any("annotates lung, which is no class" in fault.fault for fault in check_dataset(dataset).errors)


def test_paths_outside_the_folder_only_where_they_are_allowed(tmp_path: Path) -> None:
    elsewhere = volume(tmp_path / "elsewhere" / "x_ct.nii.gz")
    mask = volume(tmp_path / "elsewhere" / "x_mask.nii.gz")
    text = f"case_id,patient_id,image,label\nx,1,{elsewhere.path},../elsewhere/x_mask.nii.gz\n"
    folder(tmp_path / "set", text)
    with pytest.raises(UserError, match="is an absolute path") as caught:
        read(tmp_path / "set")
    assert "data.allow_outside=true" in str(caught.value)
    settings = {"format": "table", "root": str(tmp_path / "set"), "labels": LABELS, "allow_outside": True}
    case = open_dataset(settings, task_kind="segmentation").cases[0]
    assert case.images == {"image": elsewhere}
    assert case.label is not None
    assert case.label.path.resolve() == mask.path
    with pytest.raises(UserError, match=r"data\.allow_outside does not apply to data\.format=decathlon"):
        open_dataset({"format": "decathlon", "root": str(tmp_path), "allow_outside": True}, task_kind="segmentation")
    (tmp_path / "set" / "cases.csv").write_text(text.replace(str(elsewhere.path), "a\0b"))
    with pytest.raises(UserError, match=r"no file name|cannot be read"):
        open_dataset(settings, task_kind="segmentation")


def test_many_rows_are_read_with_their_patients(tmp_path: Path) -> None:
    count = 50_000
    rows = {
        "case_id": [f"case_{number}" for number in range(count)],
        "patient_id": [f"p{number // 2}" for number in range(count)],
        "image": [f"images/{number}.nii.gz" for number in range(count)],
        "label": [f"masks/{number}.nii.gz" for number in range(count)],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "cases.parquet")
    volume(tmp_path / "images" / "7.nii.gz")
    dataset = read(tmp_path)
    assert len(dataset.cases) == count
    assert len(dataset.patients) == count // 2
    assert dataset.cases[-1].images["image"] == FileSource(tmp_path / f"images/{count - 1}.nii.gz")
