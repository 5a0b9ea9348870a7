"""nnU-Net raw folders: channels, labels, regions, the ignore label, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow

from pipeline.data.case import FileSource
from pipeline.data.readers import open_dataset, read_nnunet
from pipeline.errors import UserError

NESTED = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}


def volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_filename(path)


def raw(root: Path, channels: int = 2, ending: str = ".nii.gz", **changes: Any) -> Path:
    for case in ("p1_a", "p1_b", "p2_a"):
        for channel in range(channels):
            volume(root / f"imagesTr/{case}_{channel:04d}{ending}")
        volume(root / f"labelsTr/{case}{ending}")
    described = {
        "channel_names": {"0": "CT", "1": "PET"} if channels == 2 else {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "numTraining": 3,
        "file_ending": ending,
    } | changes
    (root / "dataset.json").write_text(
        json.dumps({key: value for key, value in described.items() if value is not None})
    )
    return root


def test_each_channel_is_a_modality(tmp_path: Path) -> None:
    dataset = read_nnunet(root=raw(tmp_path / "Dataset001_Liver"), patient_pattern=r"^(p\d+)_")
    assert dataset.name == "Dataset001_Liver"
    assert dataset.modalities == ("CT", "PET")
    assert (dataset.channels, dataset.spatial_dims) == (2, 3)
    assert [case.case_id for case in dataset.cases] == ["p1_a", "p1_b", "p2_a"]
    assert dataset.patients == ("p1", "p2")
    folder = tmp_path / "Dataset001_Liver"
    assert dict(dataset.cases[0].images) == {
        "CT": FileSource(folder / "imagesTr/p1_a_0000.nii.gz"),
        "PET": FileSource(folder / "imagesTr/p1_a_0001.nii.gz"),
    }
    assert dataset.cases[0].label == FileSource(folder / "labelsTr/p1_a.nii.gz")
    assert dataset.output_classes == ("background", "liver", "tumour")
    assert read_nnunet(root=tmp_path, task="Dataset001_Liver").cases == read_nnunet(root=folder).cases


def test_a_channel_or_mask_whose_file_is_absent_is_missing(tmp_path: Path) -> None:
    raw(tmp_path)
    (tmp_path / "imagesTr/p1_a_0001.nii.gz").unlink()
    (tmp_path / "labelsTr/p1_b.nii.gz").unlink()
    volume(tmp_path / "labelsTr/lost.nii.gz")
    dataset = read_nnunet(root=tmp_path)
    assert set(dataset.cases[0].images) == {"CT"}
    assert dataset.cases[1].label is None
    assert dataset.channels == 2  # of the whole cases
    assert dataset.notes == ("1 masks of labelsTr have no image: lost.nii.gz",)
    missing = {"modality": "drop", "voxels": "error", "target": "drop"}
    settled = open_dataset({"format": "nnunet", "root": tmp_path, "missing": missing}, task_kind="segmentation")
    assert [case.case_id for case in settled.cases] == ["p2_a"]


def test_regions_and_the_ignore_label(tmp_path: Path) -> None:
    labels = read_nnunet(root=raw(tmp_path, labels=NESTED, regions_class_order=[1, 2, 3])).labels
    assert labels is not None
    assert labels.outputs == ("whole", "core", "enhancing")
    assert labels.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert labels.ignore == 4
    assert labels.to_value(np.array(labels.painted)).tolist() == [1, 2, 3]
    assert labels.to_index(np.array([0, 3, 4])).tolist() == [0, 3, 255]
    kits = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}
    labels = read_nnunet(root=raw(tmp_path / "kits", labels=kits, regions_class_order=[1, 3, 2])).labels
    assert labels is not None
    assert labels.to_value(np.array(labels.painted)).tolist() == [1, 3, 2]
    plain = read_nnunet(root=raw(tmp_path / "plain", labels={"background": 0, "b": 2, "a": 1, "ignore": 3})).labels
    assert plain is not None
    assert (plain.outputs, plain.regions, plain.ignore) == (("background", "a", "b"), None, 3)
    other = read_nnunet(root=tmp_path, labels={0: "nothing", 1: "something"}).labels
    assert other is not None
    assert (other.outputs, other.regions) == (("nothing", "something"), None)


def test_the_mapping_of_cases_to_files(tmp_path: Path) -> None:
    raw(tmp_path / "other")
    entry = {"images": ["../other/imagesTr/p1_a_0000.nii.gz", "../other/imagesTr/p1_a_0001.nii.gz"]}
    entry["label"] = "../other/labelsTr/p1_a.nii.gz"  # type: ignore[assignment]
    raw(tmp_path / "own", dataset={"x": entry}, numTraining=1)
    with pytest.raises(UserError, match="outside") as caught:
        read_nnunet(root=tmp_path / "own")
    assert "data.allow_outside=true" in str(caught.value)
    dataset = read_nnunet(root=tmp_path / "own", allow_outside=True)
    assert [case.case_id for case in dataset.cases] == ["x"]
    assert all(source.path.is_file() for source in dataset.cases[0].images.values())
    for wrong, fault in [
        ({"x": {"images": ["a.nii.gz"] * 3, "label": "b.nii.gz"}}, "3 images"),
        ({"x": {"images": "a.nii.gz", "label": "b.nii.gz"}}, "not of the form"),
        ({"x": {"images": ["a.nii.gz"]}}, "not of the form"),
        ({"../x": {"images": ["a.nii.gz", "b.nii.gz"], "label": "c.nii.gz"}}, "not allowed in a file name"),
        ({}, "no mapping"),
    ]:
        with pytest.raises(UserError, match=fault):
            read_nnunet(root=raw(tmp_path / "own", dataset=wrong, numTraining=1))


def test_colour_pictures_hold_all_channels(tmp_path: Path) -> None:
    for folder, picture in (("imagesTr", np.zeros((5, 6, 3), np.uint8)), ("labelsTr", np.zeros((5, 6), np.uint8))):
        (tmp_path / folder).mkdir()
        name = "a_0000.png" if folder == "imagesTr" else "a.png"
        Pillow.fromarray(picture).save(tmp_path / folder / name)
    described = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "road": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"file_ending": ".png"}))
    dataset = read_nnunet(root=tmp_path)
    assert (dataset.modalities, dataset.channels, dataset.spatial_dims) == (("image",), 3, 2)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"labels": None}, "declares no labels"),
        ({"labels": {"background": 1, "a": 2}}, "must be 0"),
        ({"labels": {"background": 0}}, "no class besides"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "both a and b"),
        ({"labels": {"background": 0, "a": "1"}}, "no whole number"),
        ({"labels": {"background": 0, "a": True}}, "no whole number"),
        ({"labels": {"background": 0, "a": []}}, "no whole number"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2, 3]}}, "ignore is"),
        ({"labels": NESTED, "regions_class_order": [1, 2]}, "one value for each of whole, core, enhancing"),
        (
            {"labels": NESTED, "regions_class_order": [3, 2, 1]},
            r"regions_class_order is \[3, 2, 1\].*leave \[1, 2, 3\]",
        ),
        ({"labels": {"background": 0, "in": 2, "out": [1, 2]}, "regions_class_order": [2, 1]}, "outermost must come"),
        ({"channel_names": None}, "channel_names is None"),
        ({"channel_names": {"1": "CT", "2": "PET"}}, "not 0 to 1"),
        ({"channel_names": {"0": "CT"}}, "channel 0001, but channel_names has 1"),
        ({"file_ending": ".nii"}, "no file ends in .nii "),
        ({"file_ending": "nii.gz"}, "file_ending is 'nii.gz'"),
        ({"file_ending": None}, "file_ending is None"),
        ({"numTraining": 4}, "numTraining is 4"),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault) as caught:
        read_nnunet(root=raw(tmp_path, **changes))
    assert str(tmp_path) in str(caught.value)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    raw(tmp_path)
    volume(tmp_path / "imagesTr/p3_a.nii.gz")
    with pytest.raises(UserError, match=r"p3_a\.nii\.gz: no channel number"):
        read_nnunet(root=tmp_path)
    (tmp_path / "imagesTr/p3_a.nii.gz").rename(tmp_path / "imagesTr/p3_a_0000.nii")
    assert read_nnunet(root=tmp_path).notes == ("1 images of imagesTr do not end in .nii.gz and are left out",)
    twice = {"0": "noNorm", "1": "noNorm"}
    assert read_nnunet(root=raw(tmp_path, channel_names=twice)).modalities == ("noNorm_0", "noNorm_1")
    with pytest.raises(UserError, match="task=classification"):
        read_nnunet(root=tmp_path, task_kind="classification")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="no valid JSON"):
        read_nnunet(root=tmp_path)
