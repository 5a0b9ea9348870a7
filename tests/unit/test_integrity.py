"""Faults that are found before training: each written into a small good data set."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow
from rich.console import Console

from pipeline.commands.check import report_faults
from pipeline.data.case import Case, Dataset, FileSource, Labels
from pipeline.data.integrity import CheckResult, CheckSettings, Fault, check_dataset
from pipeline.data.readers import read_decathlon, read_medmnist, read_table
from pipeline.errors import UserErrors

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
SHAPE = (12, 10, 8)
COUNT = 6


def mask_of() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 2:8, 2:6] = 1
    mask[4:6, 4:6, 3:5] = 2
    return mask


def image_of(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).normal(100, 10, SHAPE)
    return (noise + 3 * mask_of()).astype(np.int16)


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six patients with organ (1) and lesion (2), without a fault."""
    root = tmp_path / "data"
    entries = []
    for number in range(COUNT):
        name = f"case_{number}.nii.gz"
        write(root / "imagesTr" / name, image_of(number))
        write(root / "labelsTr" / name, np.roll(mask_of(), number + 1, axis=0))
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    labels = {"0": "background", "1": "organ", "2": "lesion"}
    listing = {"modality": {"0": "MRI"}, "labels": labels, "training": entries}
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


def check(root: Path, **settings: object) -> CheckResult:
    return check_dataset(read_decathlon(root=root), CheckSettings(**settings))  # type: ignore[arg-type]


def seen(result: CheckResult) -> list[tuple[str, str, str]]:
    return [(fault.severity, fault.rule, fault.file) for fault in result.faults]


def test_a_good_data_set_has_no_fault_and_is_described(folder: Path) -> None:
    result = check(folder)
    assert result.faults == ()
    record = result.records["case_0"]
    assert record.shape == SHAPE
    assert record.spacing == (1.0, 1.5, 2.0)
    assert record.voxel_mm == 3.0
    image = image_of(0)
    assert record.intensity == (image.min(), image.max())
    assert record.class_voxels == {"background": 960 - 144, "organ": 144 - 8, "lesion": 8}
    assert set(record.sha256) == {"imagesTr/case_0.nii.gz", "labelsTr/case_0.nii.gz"}
    assert result.foreground(read_decathlon(root=folder)) == {f"case_{number}": 24.0 for number in range(COUNT)}
    assert (result.read, result.remembered) == (12, 0)


IMAGE, LABEL, COPY = "imagesTr/case_3.nii.gz", "labelsTr/case_3.nii.gz", "imagesTr/case_5.nii.gz"


def _shifted(millimetres: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += millimetres
    return affine


def _spaced() -> np.ndarray:
    affine = AFFINE.copy()
    affine[:, 2] *= 2
    return affine


def _with(array: np.ndarray, value: float, dtype: type | None = None) -> np.ndarray:
    array = array.astype(dtype or array.dtype)
    array[5, 5, 3] = value
    return array


def _truncate(root: Path) -> None:
    path = root / IMAGE
    path.write_bytes(path.read_bytes()[:-200])


def _short(root: Path) -> None:
    path = root / IMAGE
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


def _codes(root: Path) -> None:
    image = nib.load(root / IMAGE)
    image.set_sform(AFFINE, 1)
    image.set_qform(_shifted(30), 1)
    nib.save(image, root / IMAGE)


def _link_outside(root: Path) -> None:
    (root / IMAGE).rename(root.parent / "elsewhere.nii.gz")
    (root / IMAGE).symlink_to(root.parent / "elsewhere.nii.gz")


FAULTS: list[tuple[str, Callable[[Path], object], str, str, str, str]] = [
    ("truncated", _truncate, "error", "unreadable", IMAGE, "truncated"),
    ("short", _short, "error", "unreadable", IMAGE, "truncated"),
    ("missing image", lambda r: (r / IMAGE).unlink(), "error", "unreadable", IMAGE, "missing"),
    ("missing mask", lambda r: (r / LABEL).unlink(), "error", "unreadable", LABEL, "missing"),
    ("shape", lambda r: write(r / LABEL, mask_of()[:, :, 1:]), "error", "shape", LABEL, "shape of the mask"),
    ("flat mask", lambda r: write(r / LABEL, mask_of()[:, :, 3]), "error", "shape", LABEL, "shape of the mask"),
    ("origin", lambda r: write(r / LABEL, mask_of(), _shifted(40)), "error", "affine", LABEL, "40 mm apart"),
    ("shift", lambda r: write(r / LABEL, mask_of(), _shifted(2e-3)), "error", "affine", LABEL, "origin"),
    ("spacing", lambda r: write(r / LABEL, mask_of(), _spaced()), "error", "affine", LABEL, "spacing"),
    ("7", lambda r: write(r / LABEL, _with(mask_of(), 7)), "error", "label_value", LABEL, "label values 7 "),
    ("-1", lambda r: write(r / LABEL, _with(mask_of(), -1, np.int16)), "error", "label_value", LABEL, "negative"),
    ("0.5", lambda r: write(r / LABEL, _with(mask_of(), 0.5, np.float32)), "error", "label_value", LABEL, "0.5 is no"),
    ("nan", lambda r: write(r / LABEL, _with(mask_of(), np.nan, np.float32)), "error", "label_value", LABEL, "NaN"),
    ("0/255", lambda r: write(r / LABEL, (mask_of() > 0) * np.uint8(255)), "error", "label_value", LABEL, "255"),
    ("huge", lambda r: write(r / LABEL, _with(mask_of(), 1e9, np.float64)), "error", "label_value", LABEL, "100000000"),
    ("4D mask", lambda r: write(r / LABEL, np.stack([mask_of()] * 2, -1)), "error", "channels", LABEL, "2 channels"),
    ("NaN", lambda r: write(r / IMAGE, _with(image_of(3), np.nan, np.float32)), "error", "nonfinite", IMAGE, "NaN"),
    ("inf", lambda r: write(r / IMAGE, _with(image_of(3), np.inf, np.float32)), "error", "nonfinite", IMAGE, "finite"),
    ("constant", lambda r: write(r / IMAGE, image_of(3) * 0 - 5), "error", "constant", IMAGE, "voxel is -5"),
    ("4D", lambda r: write(r / IMAGE, np.stack([image_of(3)] * 3, -1)), "error", "channels", IMAGE, "4D image with 3"),
    ("2D", lambda r: write(r / IMAGE, image_of(3)[:, :, 2]), "error", "dimensions", IMAGE, "is 2D"),
    ("copy", lambda r: shutil.copy(r / IMAGE, r / COPY), "error", "duplicate", COPY, IMAGE),
    ("units", lambda r: write(r / IMAGE, image_of(3) * 1000.0), "warning", "intensity", IMAGE, "outlier"),
    ("empty mask", lambda r: write(r / LABEL, mask_of() * 0), "warning", "empty_mask", LABEL, "empty"),
    ("one voxel", lambda r: write(r / LABEL, _with(mask_of() * 0, 1)), "warning", "small_mask", LABEL, "1 voxel"),
    ("forms", _codes, "warning", "header", IMAGE, "sform and qform disagree"),
    ("link", _link_outside, "error", "outside", IMAGE, "outside"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "severity", "rule", "file", "text"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_one_fault_in_one_file_is_found_and_nothing_else(
    folder: Path, edit: Callable[[Path], object], severity: str, rule: str, file: str, text: str
) -> None:
    edit(folder)
    result = check(folder, folds=4)
    found = [fault for fault in result.faults if fault.rule == rule]
    assert [(fault.severity, fault.file) for fault in found] == [(severity, file)]
    assert text in found[0].fault
    assert found[0].remedy
    others = (
        {(severity, rule), ("error", "shape"), ("error", "dimensions")}
        if rule in ("channels", "dimensions")
        else {(severity, rule)}
    )
    assert {(fault.severity, fault.rule) for fault in result.faults} <= others


def test_what_is_legal_is_no_fault(folder: Path) -> None:
    write(folder / LABEL, np.roll(mask_of(), 2, axis=1), _shifted(1e-5))  # rounding
    flipped = AFFINE.copy()
    flipped[0] = [-1, 0, 0, 11]
    write(folder / "imagesTr/case_4.nii.gz", image_of(4)[::-1], flipped)  # another orientation
    write(folder / "labelsTr/case_4.nii.gz", np.roll(mask_of(), 1, axis=2)[::-1], flipped)
    write(folder / "labelsTr/case_2.nii.gz", mask_of().astype(np.float32))  # floats that are whole
    assert check(folder).faults == ()


def test_classes_that_no_or_few_masks_show(folder: Path) -> None:
    for number in range(1, COUNT):
        write(folder / f"labelsTr/case_{number}.nii.gz", np.roll(np.minimum(mask_of(), 1), number, 0))
    result = check(folder)
    assert seen(result) == [("warning", "rare_class", "dataset.json")]
    assert "lesion (value 2) appears in 1 patient(s)" in result.faults[0].fault
    write(folder / "labelsTr/case_0.nii.gz", np.minimum(mask_of(), 1))
    assert "lesion (value 2) is declared but appears in no mask" in check(folder).faults[0].fault
    for number in range(COUNT):
        write(folder / f"labelsTr/case_{number}.nii.gz", mask_of() * 0)
    assert ("error", "empty_masks", "dataset.json") in seen(check(folder))


def test_masks_used_twice(folder: Path) -> None:
    listing = json.loads((folder / "dataset.json").read_text())
    listing["training"][3]["label"] = listing["training"][2]["label"]
    listing["training"][4]["label"] = listing["training"][4]["image"]
    (folder / "dataset.json").write_text(json.dumps(listing))
    result = check(folder)
    assert ("error", "label_reused", "labelsTr/case_2.nii.gz") in seen(result)
    assert ("error", "label_is_image", "imagesTr/case_4.nii.gz") in seen(result)
    shutil.copy(folder / "labelsTr/case_0.nii.gz", folder / "labelsTr/case_1.nii.gz")
    assert ("warning", "duplicate_mask", "labelsTr/case_1.nii.gz") in seen(check(folder))


def test_two_scans_of_a_patient_may_be_identical_but_are_mentioned(folder: Path) -> None:
    shutil.copy(folder / IMAGE, folder / "imagesTr/case_5.nii.gz")
    dataset = read_decathlon(root=folder)
    one = [replace(case, patient_id="A") if case.case_id in ("case_3", "case_5") else case for case in dataset.cases]
    result = check_dataset(replace(dataset, cases=tuple(one)))
    assert seen(result) == [("warning", "duplicate", "imagesTr/case_5.nii.gz")]
    assert result.duplicates == (("case_3", "case_5"),)


def test_folds_and_patients(folder: Path) -> None:
    fault = check(folder, folds=7).errors[0]
    assert fault.fault == "too few patients: folds.count=7 needs at least 7 patients; data has 6"
    assert fault.remedy == "set folds.count=6"
    dataset = read_decathlon(root=folder)
    parted = [replace(case, patient_id="A", fold=number % 2) for number, case in enumerate(dataset.cases)]
    assert ("error", "patient_folds") in {
        (fault.severity, fault.rule) for fault in check_dataset(replace(dataset, cases=tuple(parted))).faults
    }
    twice = replace(dataset, cases=(*dataset.cases, dataset.cases[0]))
    assert ("error", "case_id", "dataset.json") in seen(check_dataset(twice))


def pictures(root: Path, targets: list[str]) -> Path:
    root.mkdir(parents=True)
    rows = ["case_id,patient_id,image,target"]
    for number, target in enumerate(targets):
        picture = np.random.default_rng(number).integers(0, 255, (9, 7)).astype(np.uint8)
        Pillow.fromarray(picture).save(root / f"{number}.png")
        rows.append(f"c{number},p{number // 2},{number}.png,{target}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")
    return root


def test_targets(tmp_path: Path) -> None:
    def check_targets(name: str, targets: list[str]) -> list[Fault]:
        dataset = read_table(root=pictures(tmp_path / name, targets), task_kind="classification")
        return list(check_dataset(dataset, CheckSettings(folds=2)).faults)

    assert check_targets("good", ["a", "a", "b", "b", "a", "a", "b", "b"]) == []
    missing = check_targets("missing", ["a", "a", "b", "", "a", "a", "b", "b"])
    assert [(fault.severity, fault.case_id, fault.rule) for fault in missing] == [("error", "c3", "no_target")]
    assert [fault.rule for fault in check_targets("one", ["a"] * 8)] == ["one_class"]
    rare = check_targets("rare", ["a", "b", "a", "a", "a", "a"])
    assert [(fault.severity, fault.rule) for fault in rare] == [
        ("warning", "rare_class"),
        ("warning", "patient_targets"),
    ]
    assert "p0 has cases of different target classes: a, b" in rare[1].fault


def test_mixed_pictures_and_volumes(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data", ["a", "a", "b", "b", "a", "a", "b", "b"])
    colour = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
    Pillow.fromarray(colour).save(root / "7.png")
    write(root / "0.nii.gz", image_of(0))
    (root / "cases.csv").write_text((root / "cases.csv").read_text().replace("0.png", "0.nii.gz", 1))
    result = check_dataset(read_table(root=root, task_kind="classification"), CheckSettings(folds=2))
    assert seen(result) == [("error", "dimensions", "0.nii.gz"), ("error", "channels", "7.png")]


def test_duplicates_inside_an_npz_are_kept_together_not_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8)).astype(np.uint8)
    images[7] = images[2]
    labels = np.arange(12) % 2
    np.savez(
        tmp_path / "a.npz",
        train_images=images[:6], train_labels=labels[:6], val_images=images[6:], val_labels=labels[6:],
    )  # fmt: skip
    result = check_dataset(read_medmnist(root=tmp_path))
    assert seen(result) == [("warning", "two_splits", "a.npz:val_images[1]")]
    assert "split train and val" in result.faults[0].fault
    assert result.duplicates == (("train_00002", "val_00001"),)


def test_unchanged_files_are_remembered_and_changed_ones_read_again(folder: Path, tmp_path: Path) -> None:
    dataset, cache = read_decathlon(root=folder), tmp_path / "cache"
    first = check_dataset(dataset, cache=cache)
    again = check_dataset(dataset, cache=cache)
    assert (again.read, again.remembered) == (0, 12)
    assert (again.faults, again.records, again.data_hash) == (first.faults, first.records, first.data_hash)

    write(folder / LABEL, _with(mask_of(), 7))
    changed = check_dataset(dataset, cache=cache)
    assert (changed.read, changed.remembered) == (2, 10)  # and the image that it is compared with
    assert [fault.rule for fault in changed.errors] == ["label_value"]
    assert changed.data_hash != first.data_hash
    assert [fault.rule for fault in check_dataset(dataset, cache=cache).errors] == ["label_value"]

    path = folder / IMAGE
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert "unreadable" in {fault.rule for fault in check_dataset(dataset, cache=cache).errors}


def test_a_torn_memory_is_passed_over_and_shortened(folder: Path, tmp_path: Path) -> None:
    dataset, cache = read_decathlon(root=folder), tmp_path / "cache"
    check_dataset(dataset, cache=cache)
    (memory,) = cache.rglob("*.jsonl")
    lines = memory.read_text().splitlines()
    memory.write_text("\n".join([lines[0][:40], "[1, 2", *lines[1:]]) + "\n" + lines[3][:50])
    torn = check_dataset(dataset, cache=cache)
    assert torn.faults == ()
    assert torn.read == 2
    memory.write_text((memory.read_text() + "\n") * 20)
    check_dataset(dataset, cache=cache)
    assert len(memory.read_text().splitlines()) == 12


def test_the_data_hash_depends_on_content_alone(folder: Path, tmp_path: Path) -> None:
    result = check(folder)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert check(moved).data_hash == result.data_hash
    dataset = read_decathlon(root=folder)
    assert check_dataset(replace(dataset, cases=dataset.cases[::-1])).data_hash == result.data_hash


def test_errors_stop_a_run_together(folder: Path) -> None:
    write(folder / LABEL, _with(mask_of(), 7))
    _truncate(folder)
    with pytest.raises(UserErrors) as caught:
        check(folder).raise_errors()
    assert [error.cause.split(":")[0] for error in caught.value.errors] == [IMAGE, LABEL]
    check_dataset(
        Dataset("none", folder, "segmentation", (), ("image",), Labels({1: "a"}), (), 3), CheckSettings(folds=None)
    )


def test_faults_are_printed_as_one_table_and_kept_as_json(folder: Path) -> None:
    def printed(result: CheckResult) -> str:
        text = io.StringIO()
        report_faults(result, Console(file=text, width=200))
        return text.getvalue()

    assert "6 cases, 12 files checked" in printed(check(folder))
    assert "0 errors, 0 warnings" in printed(check(folder))
    write(folder / LABEL, mask_of(), _shifted(40))
    result = check(folder)
    said = printed(result)
    assert LABEL in said and "affine of the mask" in said and "copy the image's affine" in said
    assert "1 error, 0 warnings" in said
    content = json.loads(json.dumps(result.to_json()))
    assert content["errors"] == 1
    assert content["faults"][0]["file"] == LABEL
    assert content["records"][0]["class_voxels"]["lesion"] == 8


def test_many_faults_of_one_kind_are_abridged() -> None:
    faults = tuple(Fault("warning", f"c{n}", f"c{n}.nii", "doubtful", "look", "header") for n in range(500))
    printed = io.StringIO()
    report_faults(CheckResult(faults, {}, (), 500, 0, 1.0), Console(file=printed, width=200))
    assert "and 490 more" in printed.getvalue()
    assert len(printed.getvalue().splitlines()) < 20


def test_a_case_without_mask_is_an_error_in_segmentation(folder: Path) -> None:
    dataset = read_decathlon(root=folder)
    bare = Case("bare", "bare", {"MRI": FileSource(folder / IMAGE)})
    result = check_dataset(replace(dataset, cases=(*dataset.cases[:3], bare, *dataset.cases[4:])))
    assert seen(result) == [("error", "no_mask", IMAGE)]


def test_real_data(real_data: Callable[[str], Path]) -> None:
    dataset = read_medmnist(root=real_data("medmnist_2d"), npz="pneumoniamnist.npz", targets=["0", "1"])
    result = check_dataset(dataset)
    assert result.errors == ()
    assert sum("split train and val" in fault.fault for fault in result.warnings) == 8
    assert check_dataset(read_decathlon(root=real_data("Task04_Hippocampus"))).errors == ()
