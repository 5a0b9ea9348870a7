"""Contours and segments come back as the voxels they mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from pipeline.data.dicom import DicomSettings, ImportResult, import_dicom
from pipeline.data.dicom.rasterise import fill
from pipeline.errors import UserError
from tests import dicom_files as files

OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


def run(tmp_path: Path, labels: dict[int, str] | None = None, **settings: object) -> ImportResult:
    return import_dicom(
        tmp_path / "in",
        tmp_path / "out",
        DicomSettings(**settings),  # type: ignore[arg-type]
        labels=labels,
    )


def mask(tmp_path: Path) -> np.ndarray:
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    image = nib.load(tmp_path / "out" / row["image"])
    label = nib.load(tmp_path / "out" / row["label"])
    np.testing.assert_array_equal(image.affine, label.affine)
    assert image.shape == label.shape
    return np.asanyarray(label.dataobj)


def test_a_polygon_fills_the_pixels_whose_centres_it_encloses() -> None:
    triangle = np.array([[0.5, 0.5], [4.5, 0.5], [0.5, 4.5]])
    # centres (i, j) from 1 on with i + j < 5: 3 + 2 + 1, and those with i + j = 5 lie on the edge
    found = fill([triangle + 1e-6 * np.array([-1, -1])], (6, 6))
    assert sorted(zip(*np.nonzero(found), strict=True)) == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1)]


def test_neighbouring_polygons_neither_overlap_nor_leave_a_gap() -> None:
    left = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
    right = left + np.array([3.0, 0.0])
    both = fill([left], (9, 9)).astype(int) + fill([right], (9, 9))
    assert both.max() == 1
    assert both.sum() == 6 * 4  # the area


def test_a_polygon_beyond_the_image_is_cut_off() -> None:
    around = np.array([[-100.0, -100.0], [100.0, -100.0], [100.0, 100.0], [-100.0, 100.0]])
    assert fill([around], (4, 5)).all()
    assert not fill([around + 500], (4, 5)).any()
    assert fill([np.array([[-100.0, -100.0], [1.5, -100.0], [1.5, 100.0], [-100.0, 100.0]])], (4, 5)).sum() == 2 * 5


@pytest.mark.parametrize("seed", range(3))
def test_filling_agrees_with_a_test_of_every_centre(seed: int) -> None:
    from matplotlib.path import Path as Polygon

    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 60))
    star = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(3, 14, (60, 1)) + 15
    centres = np.stack(np.meshgrid(np.arange(30), np.arange(32), indexing="ij"), -1).reshape(-1, 2)
    inside = Polygon(np.vstack([star, star[:1]])).contains_points(centres).reshape(30, 32)
    np.testing.assert_array_equal(fill([star], (30, 32)), inside)


@pytest.mark.parametrize("orientation", [files.AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_contour_with_a_hole_has_the_area_of_the_ring(tmp_path: Path, orientation: Sequence[float]) -> None:
    images = files.series(tmp_path / "in" / "ct", orientation=orientation)
    to_mm = files.lps(images)
    outer = files.box(to_mm, (0.5, 0.5), (6.5, 4.5), 2)  # columns 1 to 6, rows 1 to 4: 24 voxels
    hole = files.box(to_mm, (2.5, 1.5), (4.5, 3.5), 2)  # columns 3 and 4, rows 2 and 3: 4 voxels
    island = files.box(to_mm, (0.5, 0.5), (2.5, 1.5), 4)
    files.structure_set(tmp_path / "in" / "rs", images, {"GTV": [outer, hole, island]})
    assert not run(tmp_path).faults
    found = mask(tmp_path)
    assert found.dtype == np.uint8
    assert [int(found[:, :, k].sum()) for k in range(files.SLICES)] == [0, 0, 24 - 4, 0, 2]
    assert not found[3:5, 2:4, 2].any()
    assert found[1:7, 1:5, 2].sum() == 20


def test_where_rois_overlap_the_later_label_stays(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    to_mm = files.lps(images)
    rois = {
        "Lung": [files.box(to_mm, (-0.5, -0.5), (3.5, 3.5), 1)],  # 4 x 4
        "GTV": [files.box(to_mm, (1.5, 1.5), (5.5, 2.5), 1)],  # 4 x 1, two of them in the lung
        "Couch": [files.box(to_mm, (-0.5, 4.5), (7.5, 5.5), 1)],
    }
    files.structure_set(tmp_path / "in" / "rs", images, rois)
    result = run(tmp_path, labels={2: "Lung", 1: "GTV"})
    found = mask(tmp_path)
    assert {value: int((found == value).sum()) for value in (1, 2)} == {1: 4, 2: 14}
    assert found[2, 2, 1] == 1
    assert any("2 voxels of Lung are also GTV" in note for note in result.notes)
    assert any("left out: Couch (1)" in note for note in result.notes)
    run(tmp_path, labels={1: "GTV", 2: "Lung"})
    assert {value: int((mask(tmp_path) == value).sum()) for value in (1, 2)} == {1: 2, 2: 16}
    declared = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert declared == {"0": "background", "1": "GTV", "2": "Lung"}


def test_rois_are_gathered_into_classes_by_pattern(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    to_mm = files.lps(images)
    rois = {
        "gtv_1": [files.box(to_mm, (0.5, 0.5), (1.5, 1.5), 0)],
        "GTV_2": [files.box(to_mm, (3.5, 3.5), (4.5, 4.5), 1)],
        "lung L": [files.box(to_mm, (4.5, 0.5), (5.5, 1.5), 1)],
    }
    files.structure_set(tmp_path / "in" / "rs", images, rois)
    result = run(tmp_path, rois={"GTV": ["gtv*"]})
    assert result.values == {"GTV": 1}
    assert np.argwhere(mask(tmp_path) == 1).tolist() == [[1, 1, 0], [4, 4, 1]]
    with pytest.raises(UserError, match="fits the classes a and b"):
        run(tmp_path, rois={"a": ["gtv*"], "b": ["*1"]})
    with pytest.raises(UserError, match="class lung: no ROI or segment fits") as raised:
        run(tmp_path, labels={1: "lung"})
    assert "did you mean lung L?" in raised.value.remedies


def test_contours_go_to_the_nearest_slice(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    to_mm = files.lps(images)
    near = [files.box(to_mm, (0.5, 0.5), (2.5, 1.5), place) for place in (-0.4, 1.3, 2.9, 3.2, 4.4)]
    files.structure_set(tmp_path / "in" / "rs", images, {"a": near})
    result = run(tmp_path)
    assert [int(mask(tmp_path)[:, :, k].sum()) for k in range(files.SLICES)] == [2, 2, 0, 2, 2]
    assert any("of each slice the nearest are used" in note for note in result.notes)


def test_contours_on_every_other_slice_are_told(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    to_mm = files.lps(images)
    files.structure_set(
        tmp_path / "in" / "rs", images, {"a": [files.box(to_mm, (0.5, 0.5), (2.5, 1.5), k) for k in (0, 2, 4)]}
    )
    assert any("contours on one slice in 2 only" in note for note in run(tmp_path).notes)


def contour(name: str, to_mm: np.ndarray) -> np.ndarray:
    if name == "beyond":
        return files.box(to_mm, (0.5, 0.5), (2.5, 1.5), 5.2)
    points = files.box(to_mm, (0.5, 0.5), (2.5, 1.5), 2)
    if name == "slanted":
        points[0, 2] += 2
    if name == "no number":
        points[0, 0] = np.nan
    return points


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("beyond", "a contour 1.2 slices away from the nearest slice"),
        ("slanted", "not parallel to the slices"),
        ("no number", "points are no coordinates"),
    ],
)
def test_a_contour_that_cannot_be_placed_is_a_fault(tmp_path: Path, name: str, said: str) -> None:
    images = files.series(tmp_path / "in" / "ct")
    files.structure_set(tmp_path / "in" / "rs", images, {"GTV": [contour(name, files.lps(images))]})
    (fault,) = run(tmp_path).faults
    assert said in fault.fault
    assert "GTV" in fault.fault
    assert fault.file == str(tmp_path / "in" / "rs")
    assert fault.series == images[0].SeriesInstanceUID


def test_a_structure_set_of_another_space_or_an_absent_series_is_a_fault(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    rois = {"GTV": [files.box(files.lps(images), (0.5, 0.5), (2.5, 1.5), 2)]}
    for image in images:
        image.FrameOfReferenceUID = generate_uid()
    files.structure_set(tmp_path / "in" / "rs", images, rois)
    assert "another frame of reference" in run(tmp_path).faults[0].fault
    absent = files.series(tmp_path / "elsewhere")
    files.structure_set(tmp_path / "in" / "rs", absent, rois)
    (fault,) = run(tmp_path).faults
    assert "refers to a series that is not in the folder" in fault.fault


def test_a_structure_set_without_a_series_is_matched_by_its_frame_of_reference(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    files.series(tmp_path / "in" / "other")
    rois = {"GTV": [files.box(files.lps(images), (0.5, 0.5), (2.5, 1.5), 2)]}
    files.structure_set(tmp_path / "in" / "rs", images, rois, refer=False)
    result = run(tmp_path)
    assert not result.faults
    assert ["label" in case.row for case in result.cases].count(True) == 1


def test_one_roi_in_two_files_is_a_fault(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    rois = {"GTV": [files.box(files.lps(images), (0.5, 0.5), (2.5, 1.5), 2)]}
    for name in ("first", "second"):
        files.structure_set(tmp_path / "in" / name, images, rois)
    (fault,) = run(tmp_path).faults
    assert "ROI GTV stands in first as well" in fault.fault


def test_a_class_that_a_mask_lacks_can_be_unannotated(tmp_path: Path) -> None:
    for number, names in enumerate((["a", "b"], ["b"])):
        images = files.series(tmp_path / "in" / str(number), patient=str(number))
        box = files.box(files.lps(images), (0.5, 0.5), (2.5, 1.5), 2)
        files.structure_set(tmp_path / "in" / f"rs{number}", images, {name: [box] for name in names})
    result = run(tmp_path, absent="unannotated")
    assert sorted(case.row["labels_present"] for case in result.cases) == ["a;b", "b"]
    with pytest.raises(UserError, match="cannot stand in the list labels_present"):
        run(tmp_path, absent="unannotated", rois={"a, b": ["*"]})


def segmentation(images: Sequence[Dataset], pixels: np.ndarray, kind: str, labels: Sequence[str]) -> Dataset:
    """A SEG of ``pixels`` (slices, rows, columns, segments), or without the last axis."""
    described = [
        hd.seg.SegmentDescription(
            number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, "MANUAL"
        )
        for number, label in enumerate(labels, start=1)
    ]
    return hd.seg.Segmentation(
        list(images), pixels, kind, described, generate_uid(), 1, generate_uid(), 1, "none", "none", "1", "1"
    )


def blobs(segments: int) -> np.ndarray:
    """Random voxels (slices, rows, columns, segments); slice 1 is empty, so that it is left out of the file."""
    found = np.random.default_rng(0).random((files.SLICES, files.ROWS, files.COLUMNS, segments)) < 0.3
    found[1] = False
    return found


@pytest.mark.parametrize("orientation", [files.AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_binary_segmentation_comes_back_voxel_for_voxel(tmp_path: Path, orientation: Sequence[float]) -> None:
    images = files.series(tmp_path / "in" / "ct", orientation=orientation)
    pixels = blobs(2)
    pixels[..., 1] &= ~pixels[..., 0]
    segmentation(images, pixels.astype(np.uint8), "BINARY", ["liver", "tumour"]).save_as(tmp_path / "in" / "seg.dcm")
    result = run(tmp_path)
    assert not result.faults
    assert result.values == {"liver": 1, "tumour": 2}
    expected = (pixels[..., 0] + 2 * pixels[..., 1]).transpose(2, 1, 0)  # columns, rows, slices
    np.testing.assert_array_equal(mask(tmp_path), expected)


def test_a_fractional_segmentation_is_cut_at_one_half(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    share = np.random.default_rng(1).random((files.SLICES, files.ROWS, files.COLUMNS)).round(2)
    segmentation(images, share, "FRACTIONAL", ["tumour"]).save_as(tmp_path / "in" / "seg.dcm")
    assert not run(tmp_path).faults
    np.testing.assert_array_equal(mask(tmp_path), (np.rint(share * 255) >= 127.5).transpose(2, 1, 0))


def test_a_label_map_comes_back_voxel_for_voxel(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    values = np.random.default_rng(2).integers(0, 3, (files.SLICES, files.ROWS, files.COLUMNS)).astype(np.uint8)
    segmentation(images, values, "LABELMAP", ["liver", "tumour"]).save_as(tmp_path / "in" / "seg.dcm")
    result = run(tmp_path)
    assert not result.faults, result.faults
    np.testing.assert_array_equal(mask(tmp_path), values.transpose(2, 1, 0))


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 0.999])
def test_a_structure_set_that_ends_early_is_a_fault(tmp_path: Path, kept: float) -> None:
    images = files.series(tmp_path / "in" / "ct")
    to_mm = files.lps(images)
    rois = {name: [files.box(to_mm, (0.5, 0.5), (2.5, 1.5), k) for k in (1, 2)] for name in ("GTV", "lung")}
    path = tmp_path / "in" / "rs.dcm"
    files.structure_set(path, images, rois)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    (fault,) = run(tmp_path).faults
    assert fault.file == str(path)


def test_a_segmentation_on_another_grid_is_a_fault(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    path = tmp_path / "in" / "seg.dcm"
    segmentation(images, blobs(1).astype(np.uint8), "BINARY", ["tumour"]).save_as(path)
    dataset = dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(place.ImagePositionPatient[0]) + 0.7, *place.ImagePositionPatient[1:]]
    dataset.save_as(path)
    (fault,) = run(tmp_path).faults
    assert "its voxel grid is not that of the series" in fault.fault
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(place.ImagePositionPatient[0]) + 0.8, *place.ImagePositionPatient[1:]]
    dataset.save_as(path)
    (fault,) = run(tmp_path).faults  # one whole column on: on the grid, and beyond its edge
    assert "outside of the series" in fault.fault


def test_a_segmentation_that_ends_early_is_a_fault(tmp_path: Path) -> None:
    images = files.series(tmp_path / "in" / "ct")
    path = tmp_path / "in" / "seg.dcm"
    segmentation(images, blobs(1).astype(np.uint8), "BINARY", ["tumour"]).save_as(path)
    path.write_bytes(path.read_bytes()[:-9])
    (fault,) = run(tmp_path).faults
    assert fault.file == str(path)
    assert "truncated" in fault.fault
