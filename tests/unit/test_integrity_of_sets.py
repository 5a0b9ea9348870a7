"""Faults that show only beside the other cases of a set: exchanged classes, strange masks, copies, cut-offs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.data.integrity import CheckResult, CheckSettings, check_dataset
from pipeline.data.readers import open_dataset, read_decathlon

SHAPE = (20, 18, 12)
AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
COUNT = 8
IMAGE, MASK = "imagesTr/case_3.nii.gz", "labelsTr/case_3.nii.gz"


def scan(number: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Noise with an organ (1) at the left and a brighter lesion (2) at the right, never quite in one place."""
    rng = np.random.default_rng(number)
    mask = np.zeros(SHAPE, np.uint8)
    left, right = number % 3, number // 3  # no two masks are the same
    mask[2 + left : 8 + left, 4:13, 2:9] = 1
    mask[12 + right : 16 + right, 5:10, 3:7] = 2
    image = rng.normal(0, 10, (*SHAPE, channels)) + 60 * (mask == 1)[..., None] + 120 * (mask == 2)[..., None]
    image[..., 1:] *= -1
    return image.round(3).astype(np.float32).squeeze(), mask


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)


def load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def write_set(root: Path, channels: int = 1) -> Path:
    entries = []
    for number in range(COUNT):
        name = f"case_{number}.nii.gz"
        image, mask = scan(number, channels)
        save(root / "imagesTr" / name, image)
        save(root / "labelsTr" / name, mask)
        entries.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    modality = {str(number): f"T{number}" for number in range(channels)}
    labels = {"0": "background", "1": "organ", "2": "lesion"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "labels": labels, "training": entries}))
    return root


def check(root: Path) -> CheckResult:
    return check_dataset(read_decathlon(root=root), CheckSettings())


def seen(result: CheckResult) -> list[tuple[str, str, str]]:
    return [(fault.severity, fault.rule, fault.file) for fault in result.faults]


def exchange(root: Path) -> None:
    save(root / MASK, np.array([0, 2, 1], np.uint8)[load(root / MASK)])


def invert(root: Path) -> None:
    save(root / MASK, (load(root / MASK) == 0).astype(np.uint8))


def shift(root: Path) -> None:
    save(root / MASK, np.roll(load(root / MASK), (9, 9), (1, 0)))


def cut(axis: int) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        image = load(root / IMAGE).copy()
        image[(slice(None),) * axis + (slice(SHAPE[axis] // 2, None),)] = 0
        save(root / IMAGE, image)

    return edit


def too_large(root: Path) -> None:
    save(root / IMAGE, load(root / IMAGE).astype(np.float64) * 1e300)


@pytest.mark.parametrize(
    ("edit", "severity", "rule", "file", "said"),
    [
        (exchange, "warning", "exchanged", MASK, "classes organ (1) and lesion (2)"),
        (invert, "warning", "faint_mask", MASK, "does not fit its image"),
        (shift, "warning", "faint_mask", MASK, "does not fit its image"),
        (cut(0), "warning", "cut_off", IMAGE, "50%"),
        (cut(1), "warning", "cut_off", IMAGE, "50%"),
        (cut(2), "warning", "cut_off", IMAGE, "50%"),
        (too_large, "error", "nonfinite", IMAGE, "float32"),
    ],
)
def test_a_case_unlike_the_others(
    edit: Callable[[Path], None], severity: str, rule: str, file: str, said: str, tmp_path: Path
) -> None:
    edit(write_set(tmp_path))
    found = [fault for fault in check(tmp_path).faults if fault.rule == rule]
    assert [(fault.severity, fault.file) for fault in found] == [(severity, file)]
    assert said in found[0].fault


def test_sets_whose_masks_agree_have_no_such_fault(tmp_path: Path) -> None:
    assert check(write_set(tmp_path / "one")).faults == ()
    assert check(write_set(tmp_path / "two", channels=2)).faults == ()
    turned = write_set(tmp_path / "turned")  # stored from right to left, which the affine tells
    affine = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    for name in (IMAGE, MASK):
        save(turned / name, load(turned / name)[::-1], affine)
    assert check(turned).faults == ()


def test_a_channel_that_is_empty_or_a_copy_of_another(tmp_path: Path) -> None:
    write_set(tmp_path, channels=2)
    image = load(tmp_path / IMAGE).copy()
    image[..., 1] = 7
    save(tmp_path / IMAGE, image)
    copied = load(tmp_path / "imagesTr/case_5.nii.gz").copy()
    copied[..., 1] = copied[..., 0]
    save(tmp_path / "imagesTr/case_5.nii.gz", copied)
    assert seen(check(tmp_path)) == [
        ("error", "constant", IMAGE),
        ("warning", "same_modality", "imagesTr/case_5.nii.gz"),
    ]


@pytest.mark.parametrize(
    "turn",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1, ::-1],
        lambda a: a.transpose(2, 0, 1),
        lambda a: np.rot90(a, axes=(0, 1)),
        lambda a: a,
    ],
    ids=["mirrored", "turned about", "axes exchanged", "rotated", "resaved"],
)
def test_a_copy_of_a_scan_is_known_however_it_is_stored(turn: Callable[..., np.ndarray], tmp_path: Path) -> None:
    write_set(tmp_path)
    save(tmp_path / "imagesTr/case_5.nii.gz", np.ascontiguousarray(turn(load(tmp_path / IMAGE))).astype(np.float64))
    save(tmp_path / "labelsTr/case_5.nii.gz", np.ascontiguousarray(turn(load(tmp_path / MASK))))
    result = check(tmp_path)
    assert ("error", "duplicate", "imagesTr/case_5.nii.gz") in seen(result)
    assert result.duplicates == (("case_3", "case_5"),)


def test_images_of_few_values_are_no_copies_because_their_numbers_agree(tmp_path: Path) -> None:
    write_set(tmp_path)
    rng = np.random.default_rng(0)
    values = np.repeat([0.0, 50.0, 100.0], [2000, 1500, 820]).astype(np.float32)
    for number in range(COUNT):
        save(tmp_path / f"imagesTr/case_{number}.nii.gz", rng.permutation(values).reshape(SHAPE))
    assert not [fault for fault in check(tmp_path).faults if fault.rule == "duplicate"]


def test_masks_that_bear_each_others_names(tmp_path: Path) -> None:
    write_set(tmp_path)
    listing = json.loads((tmp_path / "dataset.json").read_text())
    entries = listing["training"]
    entries[2]["label"], entries[4]["label"] = entries[4]["label"], entries[2]["label"]
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    found = [fault.file for fault in check(tmp_path).faults if fault.rule == "mispaired"]
    assert found == ["labelsTr/case_4.nii.gz", "labelsTr/case_2.nii.gz"]


def test_a_list_of_cases_that_links_elsewhere(tmp_path: Path) -> None:
    root = write_set(tmp_path / "data")
    (root / "dataset.json").rename(tmp_path / "elsewhere.json")
    (root / "dataset.json").symlink_to(tmp_path / "elsewhere.json")
    assert seen(check(root)) == [("error", "outside", "dataset.json")]


@pytest.mark.parametrize("suffix", [".mhd", ".nrrd"])
def test_voxels_beside_the_header_that_link_elsewhere(suffix: str, tmp_path: Path) -> None:
    root = write_set(tmp_path / "data")
    voxels = load(root / IMAGE).transpose(2, 1, 0).tobytes()
    size = " ".join(map(str, SHAPE))
    heads = {
        ".mhd": f"NDims = 3\nDimSize = {size}\nElementSpacing = 1 1.5 2\nElementType = MET_FLOAT\n"
        "TransformMatrix = -1 0 0 0 -1 0 0 0 1\nElementDataFile = voxels.raw\n",
        ".nrrd": f"NRRD0005\ntype: float\ndimension: 3\nsizes: {size}\nspace: right-anterior-superior\nendian: little\n"
        "space directions: (1,0,0) (0,1.5,0) (0,0,2)\nspace origin: (0,0,0)\nencoding: raw\ndata file: voxels.raw\n\n",
    }
    name = IMAGE.replace(".nii.gz", suffix)
    (root / name).write_text(heads[suffix])
    (root / "imagesTr/voxels.raw").write_bytes(voxels)
    listing = (root / "dataset.json").read_text().replace(IMAGE, name)
    (root / "dataset.json").write_text(listing)
    assert check(root).faults == ()
    (root / "imagesTr/voxels.raw").rename(tmp_path / "voxels.raw")
    (root / "imagesTr/voxels.raw").symlink_to(tmp_path / "voxels.raw")
    assert seen(check(root)) == [("error", "outside", name)]


def test_a_modality_that_lies_elsewhere_in_one_case(tmp_path: Path) -> None:
    for number in range(6):
        image, mask = scan(number)
        moved = AFFINE.copy()
        moved[0, 3] = 17 if number == 3 else 1
        save(tmp_path / f"c{number}/ct.nii.gz", image)
        save(tmp_path / f"c{number}/pet.nii.gz", image[::-1] * 2 + 5, moved)
        save(tmp_path / f"c{number}/mask.nii.gz", mask)
    settings = {
        "format": "files",
        "root": tmp_path,
        "images": {"CT": "{case}/ct.nii.gz", "PET": "{case}/pet.nii.gz"},
        "mask": "{case}/mask.nii.gz",
        "labels": {0: "background", 1: "organ", 2: "lesion"},
    }
    result = check_dataset(open_dataset(settings, task_kind="segmentation"), CheckSettings())
    assert seen(result) == [("warning", "little_overlap", "c3/pet.nii.gz")]


def test_a_mask_that_was_copied_and_resaved(tmp_path: Path) -> None:
    write_set(tmp_path)
    save(tmp_path / MASK, load(tmp_path / "labelsTr/case_2.nii.gz").astype(np.int16))
    assert ("warning", "duplicate_mask", MASK) in seen(check(tmp_path))
