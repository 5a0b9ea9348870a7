"""The fingerprint of tiny data sets, against values worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow

from pipeline.data.case import ArraySource, Case, Dataset, FileSource, Labels
from pipeline.data.fingerprint import (
    Fingerprint,
    FingerprintSettings,
    describe,
    fingerprint_dataset,
    write_fingerprint,
)
from pipeline.data.fingerprint.masks import measure_mask
from pipeline.data.fingerprint.memory import Memory
from pipeline.data.fingerprint.voxels import voxel_statistics
from pipeline.data.integrity import check_dataset
from pipeline.data.readers import read_table
from pipeline.errors import UserError

LABELS = Labels({0: "background", 1: "organ", 2: "lesion"})
# voxel axes: first runs to the left (2 mm), second to the head (5 mm), third to the back (0.5 mm)
PERMUTED = np.array([[-2.0, 0, 0, 10], [0, 0, -0.5, 20], [0, 5.0, 0, 30], [0, 0, 0, 1]])


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> FileSource:
    nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_filename(path)
    return FileSource(path)


def dataset(root: Path, *cases: Case, labels: Labels | None = LABELS, **changes: object) -> Dataset:
    modalities = tuple(dict.fromkeys(name for case in cases for name in case.images))
    made = Dataset("tiny", root, "segmentation", cases, modalities, labels, (), 3)
    return replace(made, **changes)  # type: ignore[arg-type]


def measured(data: Dataset, cache: Path | None = None, **settings: object) -> Fingerprint:
    digests = {case_id: record.sha256 for case_id, record in check_dataset(data).records.items()}
    return fingerprint_dataset(data, digests, FingerprintSettings(**settings), cache=cache)  # type: ignore[arg-type]


def test_axes_are_those_of_the_body(tmp_path: Path) -> None:
    image = np.zeros((4, 6, 8), np.int16)
    image[1:3, 2:6, 3] = 7
    source = write(tmp_path / "a.nii", image, PERMUTED)
    grid = measured(dataset(tmp_path, Case("a", "a", {"CT": source}), labels=None)).overall.grids["CT"]
    assert [axis.median for axis in grid.spacing] == [2, 0.5, 5]
    assert [axis.median for axis in grid.shape] == [4, 8, 6]
    assert [axis.median for axis in grid.size] == [8, 4, 30]
    assert [axis.median for axis in grid.cropped_shape] == [2, 1, 4]
    assert [axis.median for axis in grid.cropped_size] == [4, 0.5, 20]
    assert grid.anisotropy.median == 10
    assert grid.orientations == {"LSP": 1}


def test_spreads_over_cases(tmp_path: Path) -> None:
    cases = []
    for number, length in enumerate((1.0, 1.0, 2.0, 4.0)):
        affine = np.diag([length, 1, 1, 1])
        cases.append(Case(str(number), "p", {"CT": write(tmp_path / f"{number}.nii", np.ones((3, 3, 3)), affine)}))
    found = measured(dataset(tmp_path, *cases, labels=None), percentiles=(25.0, 75.0)).overall
    assert (found.cases, found.patients) == (4, 1)
    spacing = found.grids["CT"].spacing[0]
    assert (spacing.count, spacing.mean, spacing.min, spacing.median, spacing.max) == (4, 2, 1, 1.5, 4)
    assert spacing.percentiles == {"25": 1.0, "75": 2.5}
    assert spacing.std == pytest.approx(np.sqrt(1.5))


def test_the_crop_keeps_what_any_modality_on_the_grid_shows(tmp_path: Path) -> None:
    first, second, other = (np.zeros((6, 6, 6), np.float32) for _ in range(3))
    first[1, 1, 1], second[4, 2, 1], other[0, 0, 0] = 1, 1, 1
    images = {
        "A": write(tmp_path / "a.nii", first),
        "B": write(tmp_path / "b.nii", second),
        "C": write(tmp_path / "c.nii", other, np.diag([2.0, 2, 2, 1])),
    }
    grids = measured(dataset(tmp_path, Case("x", "x", images), labels=None)).overall.grids
    assert {name: [axis.median for axis in grid.cropped_shape] for name, grid in grids.items()} == {
        "A": [4, 2, 1],
        "B": [4, 2, 1],
        "C": [1, 1, 1],
    }


def test_intensities_of_image_and_foreground(tmp_path: Path) -> None:
    mask = np.zeros((2, 5, 1), np.uint8)
    mask[1, :, 0] = [0, 1, 1, 2, 2]
    first = np.arange(10, dtype=np.int16).reshape(2, 5, 1)  # foreground 6, 7, 8, 9
    second = first * np.int16(3) + np.int16(100)  # 118, 121, 124, 127
    cases = [
        Case(name, name, {"CT": write(tmp_path / f"{name}.nii", array)}, write(tmp_path / f"{name}_mask.nii", mask))
        for name, array in (("a", first), ("b", second))
    ]
    found = measured(dataset(tmp_path, *cases), percentiles=(10.0, 90.0)).overall.intensities["CT"]
    assert found.foreground is not None
    values = np.array([6, 7, 8, 9, 118, 121, 124, 127])
    assert (found.foreground.min, found.foreground.median, found.foreground.max) == (6, 63.5, 127)
    assert found.foreground.mean == values.mean()
    assert found.foreground.std == pytest.approx(values.std())
    assert found.foreground.percentiles == pytest.approx({"10": 6.7, "90": 124.9})
    every = np.concatenate([first.ravel(), second.ravel()])
    assert found.image.mean == every.mean()
    assert found.image.std == pytest.approx(every.std())
    assert (found.by_case["mean"].min, found.by_case["mean"].max) == (4.5, 113.5)
    assert found.by_case["low"].min == pytest.approx(0.9)  # 10th percentile of 0..9
    assert found.by_case["lowest_share"].max == 0.1
    assert (found.cases, found.stored, found.ranges) == (2, {"int16": 2}, {"0..255": 2})


def test_every_case_has_the_same_weight(tmp_path: Path) -> None:
    """A case with one foreground voxel counts as much as one with four."""
    cases = []
    for name, count, value in (("a", 4, 0), ("b", 1, 100)):
        image, mask = np.full((4, 1, 1), value, np.int16), np.zeros((4, 1, 1), np.uint8)
        mask[:count] = 1
        files = write(tmp_path / f"{name}.nii", image), write(tmp_path / f"{name}_mask.nii", mask)
        cases.append(Case(name, name, {"CT": files[0]}, files[1]))
    pool = measured(dataset(tmp_path, *cases)).overall.intensities["CT"].foreground
    assert pool is not None
    assert (pool.mean, pool.std, pool.median) == (50, 50, 50)


def test_foreground_of_another_grid_is_found_in_space(tmp_path: Path) -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[2:, 2:, 2:] = 1  # 1 mm voxels, centres 2 and 3 mm
    fine = write(tmp_path / "fine.nii", np.where(mask > 0, 5, 1).astype(np.int16))
    coarse = np.zeros((2, 2, 2), np.int16)
    coarse[1, 1, 1] = 9  # 2 mm voxels, centres 0.5 and 2.5 mm
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 0.5
    images = {"CT": fine, "PET": write(tmp_path / "coarse.nii", coarse, affine)}
    found = measured(dataset(tmp_path, Case("a", "a", images, write(tmp_path / "mask.nii", mask)))).overall
    for channel, value in (("CT", 5), ("PET", 9)):
        pool = found.intensities[channel].foreground
        assert pool is not None
        assert (pool.min, pool.max) == (value, value)


@pytest.mark.parametrize(("connectivity", "components"), [("faces", 4), ("edges", 3), ("corners", 2)])
def test_components_by_connectivity(connectivity: str, components: int) -> None:
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 0] = mask[2, 2, 1] = 1  # a shared edge, then a shared corner
    mask[4, 4, 4] = 1
    mask[3, 3, 3] = 2  # touches the last in a corner and is another class
    found = measure_mask(mask, LABELS, 1.0, connectivity)  # type: ignore[arg-type]
    assert found.classes["organ"].components == components
    assert found.classes["lesion"].components == 1
    assert (found.classes["organ"].touching, found.classes["lesion"].touching) == (True, False)


def test_planes_have_their_own_neighbours() -> None:
    mask = np.eye(4, dtype=np.uint8)
    counts = [measure_mask(mask, LABELS, 1.0, kind).classes["organ"].components for kind in ("faces", "corners")]
    assert counts == [4, 1]


def test_classes_regions_and_ignored_voxels(tmp_path: Path) -> None:
    labels = Labels({0: "background", 1: "organ", 2: "lesion"}, {"whole": (1, 2), "core": (2,)}, ignore=9)
    full = np.zeros((4, 4, 4), np.uint8)
    full[1:3, 1:3, 1] = [[1, 2], [2, 1]]  # diagonal neighbours
    full[3, 3, 3] = 9
    empty = np.zeros((4, 4, 4), np.uint8)
    affine = np.diag([1.0, 2, 3, 1])
    cases = []
    for name, mask, present in (("a", full, None), ("b", empty, None), ("c", full, ("organ",))):
        image = write(tmp_path / f"{name}.nii", mask + np.uint8(len(cases)), affine)
        label = write(tmp_path / f"{name}_mask.nii", mask, affine)
        cases.append(Case(name, name, {"MRI": image}, label, labels_present=present))
    found = measured(dataset(tmp_path, *cases, labels=labels), connectivity="faces").overall
    organ, lesion = found.classes["organ"], found.classes["lesion"]
    assert (organ.annotated, organ.present, organ.voxels) == (3, 2, 4)
    assert organ.share == 4 / (3 * 64 - 2)
    assert (lesion.annotated, lesion.present, lesion.voxels) == (2, 1, 2)
    assert lesion.share == 2 / (2 * 64 - 1)
    assert lesion.volume is not None
    assert lesion.components is not None
    assert (lesion.volume.median, lesion.components.median, lesion.touching) == (12, 2, 0)
    whole = found.regions["whole"]
    assert whole.components is not None
    assert (whole.annotated, whole.voxels, whole.components.max) == (3, 8, 1)
    assert found.ignored_share == 2 / 192


def test_missing_modalities_channels_and_sites(tmp_path: Path) -> None:
    two = np.stack([np.zeros((3, 3, 3)), np.full((3, 3, 3), 4)], axis=-1).astype(np.float32)
    both = {"MR": write(tmp_path / "mr.nii", two), "CT": write(tmp_path / "ct.nii", np.ones((3, 3, 3)))}
    only = {"CT": write(tmp_path / "ct2.nii", np.full((3, 3, 3), -5.0))}
    cases = Case("a", "p", both, target="yes", site="north"), Case("b", "p", only, target="no", site="south")
    made = dataset(tmp_path, *cases, labels=None, task="classification", classes=("no", "yes"))
    found = measured(made)
    assert {name: part.cases for name, part in found.overall.intensities.items()} == {"MR[0]": 1, "MR[1]": 1, "CT": 2}
    assert {name: grid.cases for name, grid in found.overall.grids.items()} == {"MR": 1, "CT": 2}
    assert found.overall.intensities["CT"].ranges == {"0..1": 1, "wider": 1}
    assert found.overall.targets == {"no": 1, "yes": 1}
    assert found.overall.classes == {}
    assert list(found.sites) == ["north", "south"]
    assert list(found.sites["south"].intensities) == ["CT"]
    assert (found.overall.patients, found.sites["south"].patients) == (1, 1)


def test_pictures_and_arrays_have_pixels(tmp_path: Path) -> None:
    Pillow.fromarray(np.full((5, 9), 200, np.uint8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "b.npz", images=np.full((2, 7, 8), 100, np.uint8))
    cases = [Case("a", "a", {"image": FileSource(tmp_path / "a.png")})]
    cases += [Case(f"b{index}", "b", {"image": ArraySource(tmp_path / "b.npz", "images", index)}) for index in (0, 1)]
    found = measured(dataset(tmp_path, *cases, labels=None, spatial_dims=2))
    assert (found.unit, found.axes) == ("px", ("row", "column"))
    grid = found.overall.grids["image"]
    assert [(axis.min, axis.max) for axis in grid.shape] == [(5, 7), (8, 9)]
    assert grid.orientations == {}
    assert describe(found)[1] == "  image: shape 7 (5 to 7) x 8 (8 to 9) px (row, column)"


def test_voxels_that_are_no_numbers_are_left_out() -> None:
    values = np.array([np.nan, 1, 3, np.inf, -np.inf, 1e300, 5])
    found = voxel_statistics(values, 100, np.random.default_rng(0))
    assert found is not None
    assert (found.count, found.mean, found.min, found.max, found.sample.tolist()) == (3, 3, 1, 5, [1, 3, 5])
    assert voxel_statistics(np.full(4, np.nan), 100, np.random.default_rng(0)) is None


def test_moments_keep_their_digits_over_many_blocks() -> None:
    values = np.random.default_rng(0).normal(1e6, 1, 2_500_000)
    found = voxel_statistics(values, 10, np.random.default_rng(0))
    assert found is not None
    assert found.std == pytest.approx(values.std(), rel=1e-9)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.sample.size == 10


def test_many_cases_give_fewer_voxels_each() -> None:
    settings = FingerprintSettings(sample_voxels=1000, pool_voxels=10_000)
    assert [settings.drawn(cases) for cases in (1, 10, 11, 20, 21, 100_000)] == [1000, 1000, 500, 500, 250, 1]


@pytest.fixture
def scans(tmp_path: Path) -> Dataset:
    """Three cases with noise and masks."""
    root = tmp_path / "data"
    root.mkdir()
    cases = []
    for number in range(3):
        draw = np.random.default_rng(number)
        image = write(root / f"{number}.nii.gz", draw.normal(0, 300, (30, 30, 20)).astype(np.float32))
        mask = write(root / f"{number}_mask.nii.gz", (draw.random((30, 30, 20)) < 0.3).astype(np.uint8))
        cases.append(Case(str(number), str(number), {"CT": image}, mask))
    return dataset(root, *cases)


def test_remembered_measurements_are_the_same_and_not_read_again(scans: Dataset, tmp_path: Path) -> None:
    digests = {case_id: record.sha256 for case_id, record in check_dataset(scans).records.items()}
    settings, cache = FingerprintSettings(sample_voxels=500), tmp_path / "cache"
    seen: list[int] = []
    first = fingerprint_dataset(scans, digests, settings, cache=cache, report=lambda done, total: seen.append(done))
    assert seen == [1, 2, 3]
    for path in scans.root.iterdir():
        path.unlink()  # now memory is all there is
    again = fingerprint_dataset(scans, digests, settings, cache=cache)
    assert again == first
    kept = [Fingerprint.read(path) for path in (cache / "fingerprint").glob("*.json")]
    assert kept == [first]


def test_a_changed_file_or_way_of_measuring_is_measured_again(scans: Dataset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = measured(scans, cache)
    write(scans.root / "1.nii.gz", np.full((30, 30, 20), 5000, np.float32))
    changed = measured(scans, cache)
    assert first.overall.intensities["CT"].image.max < 5000
    assert changed.overall.intensities["CT"].image.max == 5000
    other = measured(scans, cache, connectivity="faces").overall.classes["organ"].components
    assert other is not None
    assert changed.overall.classes["organ"].components is not None
    assert other.median > changed.overall.classes["organ"].components.median


def test_draws_depend_on_content_and_seed_alone(scans: Dataset) -> None:
    settings: dict[str, object] = {"sample_voxels": 50}
    first = measured(scans, **settings)
    assert measured(replace(scans, cases=scans.cases[::-1]), **settings) == first
    assert measured(scans, **settings, seed=1).overall.intensities != first.overall.intensities


def test_torn_lines_of_the_memory_are_passed_over(scans: Dataset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = measured(scans, cache)
    memory = next((cache / "fingerprint").glob("*.jsonl"))
    lines = memory.read_bytes().splitlines(keepends=True)
    memory.write_bytes(lines[0] + b"nonsense\n" + lines[1][: len(lines[1]) // 2] + b"\n" + lines[2][:-40])
    assert measured(scans, cache) == first


def test_memory_forgets_what_is_not_used(scans: Dataset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    measured(scans, cache)
    path = next((cache / "fingerprint").glob("*.jsonl"))
    line = path.read_bytes().splitlines(keepends=True)[0].partition(b"\t")[2]
    with path.open("ab") as file:
        file.writelines(b"%032d\t%s" % (number, line) for number in range(200))
    measured(scans, cache)
    assert len(path.read_bytes().splitlines()) == 3
    with Memory(cache / "fingerprint", "data", "elsewhere") as memory:
        assert memory.recall("0" * 32) is None


def test_the_file_is_strict(scans: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.json"
    found = measured(scans)
    write_fingerprint(path, found)
    assert Fingerprint.read(path) == found
    content = json.loads(path.read_text())
    for change, said in (
        ({"version": 2}, "version"),
        ({"more": 1}, "more"),
        ({"spatial_dims": "3"}, "spatial_dims"),
        ({"overall": {**content["overall"], "cases": 2.5}}, "overall.cases"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match=f"not a fingerprint of this version: {said}"):
            Fingerprint.read(path)
    path.write_text(json.dumps(content).replace(": 0.0,", ": NaN,", 1))
    with pytest.raises(UserError, match="not a fingerprint"):
        Fingerprint.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        Fingerprint.read(tmp_path / "absent.json")


def test_undeclared_values_name_the_mask(scans: Dataset) -> None:
    write(scans.root / "1_mask.nii.gz", np.full((30, 30, 20), 7, np.uint8))
    with pytest.raises(UserError, match=r"1_mask.nii.gz: values 7 are not declared"):
        measured(scans)


def test_lines_for_people(scans: Dataset) -> None:
    lines = describe(measured(scans))
    assert lines[0] == "tiny: 3 cases of 3 patients"
    assert lines[1] == "  CT: spacing 1 x 1 x 1 mm (R, A, S), shape 30 x 30 x 20 voxels"
    assert lines[2].startswith("  CT: float32; foreground mean ")
    assert lines[3].startswith("  class organ: in 3 of 3 cases, 29.")
    assert lines[4] == "  class lesion: in 0 of 3 cases, 0.00% of the voxels"


def test_real_nodules_are_as_their_table_says(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = real_data("lidc_nodules")
    data = read_table(
        root=root,
        task_kind="segmentation",
        table="nodules.csv",
        columns={
            "case_id": "name",
            "patient_id": "patient",
            "image": "images/{name}.nii.gz",
            "label": "labels/{name}.nii.gz",
            "target": "class",
        },
        labels={0: "background", 1: "nodule"},
    )
    data = replace(data, cases=data.cases[:20])
    found = measured(data, tmp_path).overall
    assert found.intensities["image"].ranges == {"0..255": 20}
    assert found.grids["image"].shape[0].max == 128
    rows = {line.split(",")[0]: line.split(",") for line in (root / "nodules.csv").read_text().splitlines()[1:]}
    slices = [float(rows[case.case_id][3]) for case in data.cases]
    spacing = [float(rows[case.case_id][4]) for case in data.cases]
    assert found.grids["image"].shape[2].median == np.median(slices)
    assert found.grids["image"].spacing[0].median == pytest.approx(np.median(spacing), abs=1e-4)
    assert found.classes["nodule"].present == 20
