"""Folders of classes and BIDS folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow

from pipeline.data.case import FileSource
from pipeline.data.readers import open_dataset, read_bids, read_class_folders
from pipeline.errors import UserError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.zeros((5, 6), np.uint8)).save(path)


def test_a_folder_is_a_class(tmp_path: Path) -> None:
    for name in ("ill/p1_a.png", "ill/deep/er/p1_b.jpg", "well/p2_a.png", "other/p3.tif"):
        picture(tmp_path / name)
    (tmp_path / "ill/notes.txt").write_text("")
    (tmp_path / "ill/.hidden.png").write_text("")
    (tmp_path / ".cache").mkdir()
    picture(tmp_path / "overview.png")
    dataset = read_class_folders(root=tmp_path, patient_pattern=r"^(p\d+)")
    assert [case.case_id for case in dataset.cases] == ["ill__p1_a", "ill__deep__er__p1_b", "other__p3", "well__p2_a"]
    assert [case.target for case in dataset.cases] == ["ill", "ill", "other", "well"]
    assert dataset.patients == ("p1", "p3", "p2")
    assert dataset.cases[0].images == {"image": FileSource(tmp_path / "ill/p1_a.png")}
    assert dataset.cases[0].split is None
    assert (dataset.classes, dataset.spatial_dims, dataset.channels) == (("ill", "other", "well"), 2, 1)
    assert dataset.notes == (
        "1 images lie in no folder of a class and are left out: overview.png",
        "1 files are left out: no image",
    )
    chosen = read_class_folders(root=tmp_path, targets=["well", "ill"])
    assert chosen.classes == ("well", "ill")
    assert len(chosen.patients) == 3
    merged = read_class_folders(root=tmp_path, target_names={"ill": "ill", "other": "ill", "well": "well"})
    assert [case.target for case in merged.cases] == ["ill", "ill", "ill", "well"]
    with pytest.raises(UserError, match="does not match p1_a"):
        read_class_folders(root=tmp_path, patient_pattern=r"^(q\d+)")


def test_folders_of_splits_stand_above_the_classes(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "Validation/a/1.png", "test/b/1.png"):
        picture(tmp_path / name)
    dataset = read_class_folders(root=tmp_path)
    assert {case.case_id: case.split for case in dataset.cases} == {
        "Validation__a__1": "val",
        "test__b__1": "test",
        "train__a__1": "train",
        "train__b__1": "train",
    }
    assert len(dataset.patients) == 4  # the same name elsewhere is another patient
    only = read_class_folders(root=tmp_path, splits=["train"])
    assert [case.case_id for case in only.cases] == ["train__a__1", "train__b__1"]
    (tmp_path / "test/b/1.png").unlink()
    (tmp_path / "test").rename(tmp_path / "extra")
    with pytest.raises(UserError, match="holds folders of splits beside"):
        read_class_folders(root=tmp_path)


@pytest.mark.parametrize(
    ("files", "settings", "fault"),
    [
        (["a/1.png"], {}, "holds 1 folders of classes"),
        ([], {}, "holds 0 folders"),
        (["a/1.png", "b/x.txt"], {}, "folders b hold no image"),
        (["a/1.png", "a/1.jpg", "b/1.png"], {}, "a__1 is listed twice"),
        (["a/1.png", "b/1.png"], {"splits": ["train"]}, "not made of folders train"),
        (["train/a/1.png", "train/b/1.png"], {"splits": ["val"]}, "has no split val"),
        (["train/a/1.png"], {}, "fewer than two folders of classes"),
        (["a/1.png", "b/1.png"], {"targets": ["a", "c"]}, "no case of class 'c'"),
        (["a/1.png", "b/1.png"], {"task_kind": "segmentation"}, "task=classification"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files: list[str], settings: dict[str, Any], fault: str) -> None:
    for name in files:
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).parent.mkdir()
        if name.endswith("txt"):
            (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=fault):
        read_class_folders(root=tmp_path, **settings)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        picture(tmp_path / name)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    dataset = read_class_folders(root=tmp_path)
    assert len(dataset.cases) == 2
    assert dataset.notes == ("1 files are left out: behind a link to a folder",)


def scan(path: Path) -> FileSource:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_filename(path)
    return FileSource(path)


LABELS = {0: "background", 1: "lesion"}


def bids(root: Path, choice: Mapping[str, Any] | None = None, **settings: Any) -> Any:
    given = {"datatype": "anat", "suffix": "T1w", "derivative": "derivatives/man", "mask": {"suffix": "dseg"}}
    given |= dict(choice or {})
    return read_bids(root=root, **{"task_kind": "segmentation", "labels": LABELS, "bids": given} | settings)


def test_sessions_modalities_and_masks(tmp_path: Path) -> None:
    for session in ("ses-1", "ses-2"):
        scan(tmp_path / f"sub-01/{session}/anat/sub-01_{session}_T1w.nii.gz")
        scan(tmp_path / f"sub-01/{session}/anat/sub-01_{session}_FLAIR.nii.gz")
        scan(tmp_path / f"derivatives/man/sub-01/{session}/anat/sub-01_{session}_desc-lesion_dseg.nii.gz")
        scan(tmp_path / f"derivatives/man/sub-01/{session}/anat/sub-01_{session}_desc-brain_dseg.nii.gz")
    scan(tmp_path / "sub-02/anat/sub-02_T1w.nii.gz")
    (tmp_path / "sub-02/anat/sub-02_T1w.json").write_text("{}")
    scan(tmp_path / "sub-03/anat/sub-03_bold.nii.gz")
    choice = {"suffix": ["T1w", "FLAIR"], "mask": {"suffix": "dseg", "desc": "lesion"}}
    dataset = bids(tmp_path, choice)
    assert [case.case_id for case in dataset.cases] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert dataset.patients == ("sub-01", "sub-02")
    assert (dataset.modalities, dataset.channels, dataset.spatial_dims) == (("T1w", "FLAIR"), 2, 3)
    assert list(dataset.cases[2].images) == ["T1w"]
    assert dataset.cases[2].label is None
    mask = tmp_path / "derivatives/man/sub-01/ses-2/anat/sub-01_ses-2_desc-lesion_dseg.nii.gz"
    assert dataset.cases[1].label == FileSource(mask)
    assert dataset.notes == ("1 subjects have no such image and are left out: sub-03",)
    with pytest.raises(UserError, match="2 masks for sub-01_ses-1_T1w"):
        bids(tmp_path, {"suffix": ["T1w", "FLAIR"]})
    settings = {"format": "bids", "root": str(tmp_path), "labels": LABELS, "bids": choice | {"datatype": "anat"}}
    settings["bids"]["derivative"] = "derivatives/man"  # type: ignore[index]
    missing = {"modality": "drop", "voxels": "error", "target": "error"}
    assert len(open_dataset({**settings, "missing": missing}, task_kind="segmentation").cases) == 2


def test_runs_are_cases_and_entities_choose(tmp_path: Path) -> None:
    anat = tmp_path / "sub-01/anat"
    for run in ("01", "02"):
        scan(anat / f"sub-01_run-{run}_T1w.nii.gz")
        scan(tmp_path / f"derivatives/man/sub-01/anat/sub-01_run-{int(run)}_dseg.nii.gz")
    flair = scan(anat / "sub-01_FLAIR.nii.gz")
    dataset = bids(tmp_path, {"suffix": ["T1w", "FLAIR"]})
    assert [case.case_id for case in dataset.cases] == ["sub-01_run-01", "sub-01_run-02"]
    assert [case.images["FLAIR"] for case in dataset.cases] == [flair, flair]
    assert dataset.cases[1].label.path.name == "sub-01_run-2_dseg.nii.gz"
    assert dataset.patients == ("sub-01",)
    scan(anat / "sub-01_acq-fast_run-01_T1w.nii.gz")
    with pytest.raises(UserError, match=r"2 images T1w for one case.*acq-fast"):
        bids(tmp_path)
    chosen = bids(tmp_path, {"entities": {"acq": "fast"}})
    assert [case.case_id for case in chosen.cases] == ["sub-01_run-01"]
    scan(anat / "sub-01_acq-fast_run-01_T1w.nii")
    with pytest.raises(UserError, match="2 images T1w"):
        bids(tmp_path, {"entities": {"acq": "fast"}})
    assert len(bids(tmp_path, {"entities": {"acq": "fast"}, "extension": ".nii"}).cases) == 1


def test_masks_by_template_must_exist_and_stay_inside(tmp_path: Path) -> None:
    scan(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "derivatives/man").mkdir(parents=True)
    template = {"template": "{sub}/anat/{sub}_T1w_lesion.nii.gz", "suffix": None}
    dataset = bids(tmp_path, {"mask": template})
    assert dataset.cases[0].label == FileSource(tmp_path / "derivatives/man/sub-01/anat/sub-01_T1w_lesion.nii.gz")
    for mask, fault in [
        ({"template": "{sub}_{ses}.nii.gz"}, "has no ses"),
        ({"template": "../../{sub}.nii.gz"}, "outside"),
        ({"template": "/{sub}.nii.gz"}, "absolute"),
        ({"desc": "lesion"}, "either a suffix or a template"),
        ({"template": "a", "suffix": "dseg"}, "either a suffix or a template"),
        ({"template": "a", "desc": "x"}, "stands alone"),
    ]:
        with pytest.raises(UserError, match=fault):
            bids(tmp_path, {"mask": mask})


def test_participants_give_target_and_site(tmp_path: Path) -> None:
    for subject in ("01", "02", "03"):
        scan(tmp_path / f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz")
    table = "participant_id\tgroup\tcentre\nsub-01\tpatient\tA\nsub-02\tcontrol\tB\nsub-03\tn/a\tB\n"
    (tmp_path / "participants.tsv").write_text(table)
    choice = {"target": "group", "site": "centre"}
    dataset = bids(tmp_path, choice, task_kind="classification")
    assert [(case.target, case.site) for case in dataset.cases] == [("patient", "A"), ("control", "B"), (None, "B")]
    assert dataset.classes == ("control", "patient")
    assert dataset.index == tmp_path / "participants.tsv"
    named = bids(tmp_path, choice, task_kind="classification", target_names={"patient": "ill", "control": "well"})
    assert named.classes == ("ill", "well")
    with pytest.raises(UserError, match=r"no column 'grup'.*data\.bids\.target") as caught:
        bids(tmp_path, {"target": "grup"}, task_kind="classification")
    assert caught.value.remedies == ("did you mean group?",)
    with pytest.raises(UserError, match=r"data\.bids\.target is not set"):
        bids(tmp_path, task_kind="classification")
    (tmp_path / "participants.tsv").write_text(table + "sub-01\tcontrol\tA\n")
    with pytest.raises(UserError, match="sub-01 is listed twice"):
        bids(tmp_path, choice, task_kind="classification")


def test_bids_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder sub-LABEL"):
        bids(tmp_path)
    scan(tmp_path / "sub-01/anat/sub-01_T2w.nii.gz")
    (tmp_path / "derivatives/manual").mkdir(parents=True)
    with pytest.raises(UserError, match="derivatives has no man") as caught:
        bids(tmp_path)
    assert "manual" in caught.value.remedies[0]
    with pytest.raises(UserError, match=r"no image sub-\*/anat/\*_T1w") as caught:
        bids(tmp_path, {"derivative": "derivatives/manual"})
    assert caught.value.remedies == ("there are anat/*_T2w",)
    for choice, settings, fault in [
        ({"mask": None}, {}, r"data\.bids\.mask is not set"),
        ({}, {"labels": None}, r"data\.labels is not set"),
        ({"suffix": None}, {}, r"data\.bids\.suffix is not set"),
        ({"suffix": ["T1w", "T1w"]}, {}, "name each suffix once"),
        ({"derivative": "../x"}, {}, "outside"),
    ]:
        with pytest.raises(UserError, match=fault):
            bids(tmp_path, choice, **settings)
    (tmp_path / "sub-01/anat/sub-01_T2w.nii.gz").rename(tmp_path / "sub-01/anat/sub-02_T1w.nii.gz")
    with pytest.raises(UserError, match="that of another subject"):
        bids(tmp_path, {"derivative": None})
