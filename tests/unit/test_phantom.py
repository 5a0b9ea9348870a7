"""The generated thorax CT data set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pipeline.data.phantom import PhantomSettings, write_phantom_lung
from pipeline.data.phantom.write import Scan, list_scans, make_case
from pipeline.errors import UserError, UserErrors

COARSE = PhantomSettings(
    patients=7, spacing_mm=(6.5, 7.5), slice_mm=(6.0, 8.0), tumour_diameter_mm=(24, 55), second_scan_rate=0.3
)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "set"
    write_phantom_lung(root, COARSE, workers=1)
    return root


@pytest.fixture(scope="module")
def upright(written: Path) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, HU and labels in RAS+, and spacing of every case."""
    cases = []
    for entry in json.loads((written / "dataset.json").read_text())["training"]:
        image, label = (nib.as_closest_canonical(nib.load(written / entry[kind])) for kind in ("image", "label"))
        name = Path(entry["image"]).name
        cases.append((name, np.asarray(image.dataobj), np.asarray(label.dataobj), np.array(image.header.get_zooms())))
    return cases


def test_decathlon_layout(written: Path) -> None:
    dataset = json.loads((written / "dataset.json").read_text())
    assert dataset["modality"] == {"0": "CT"}
    assert dataset["labels"] == {"0": "background", "1": "lung", "2": "tumour"}
    assert dataset["numTraining"] == len(dataset["training"]) == len(list_scans(COARSE))
    codes = set()
    for entry in dataset["training"]:
        image, label = nib.load(written / entry["image"]), nib.load(written / entry["label"])
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        assert np.array_equal(image.affine, label.affine)
        assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        assert set(np.unique(label.dataobj)) <= {0, 1, 2}
        codes.add("".join(nib.aff2axcodes(image.affine)))
    assert len(codes) >= 3
    assert codes <= set(COARSE.orientations)


def test_files_do_not_depend_on_workers(written: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    write_phantom_lung(tmp_path / "set", COARSE, workers=2, report=lambda done, total: steps.append((done, total)))
    assert files(tmp_path / "set") == files(written)
    total = len(list_scans(COARSE))
    assert steps == [(done, total) for done in range(1, total + 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_seeds_and_patients_differ() -> None:
    first, same = (make_case(COARSE, Scan(0, 1, True, 3))[0] for _ in range(2))
    assert np.array_equal(first, same)
    for other in (
        make_case(COARSE, Scan(1, 1, True, 3))[0],
        make_case(COARSE, Scan(0, 2, True, 3))[0],
        make_case(replace(COARSE, seed=1), Scan(0, 1, True, 3))[0],
    ):
        assert first.shape != other.shape or not np.array_equal(first, other)


@pytest.mark.parametrize("patients", [5, 20, 333])
def test_rates_hold_for_any_number_of_patients(patients: int) -> None:
    settings = PhantomSettings(patients=patients, second_scan_rate=0.2, tumour_free_rate=0.15)
    scans = list_scans(settings)
    assert len({scan.case_id for scan in scans}) == len(scans)
    assert sum(scan.number == 2 for scan in scans) == pytest.approx(0.2 * patients, abs=2)
    assert sum(scan.number == 1 and not scan.with_tumours for scan in scans) == pytest.approx(0.15 * patients, abs=2)
    # More patients leave those before them as they were.
    assert list_scans(replace(settings, patients=patients + 1))[: len(scans)] == scans


def test_second_scan_shows_the_same_patient(upright: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    scans = list_scans(COARSE)
    assert [name for name, *_ in upright] == [f"{scan.case_id}.nii.gz" for scan in scans]
    by_patient: dict[str, list[float]] = {}
    for name, _, label, spacing in upright:
        found = re.match(r"^(patient_\d+)", name)
        assert found is not None
        by_patient.setdefault(found[1], []).append(float((label > 0).sum() * spacing.prod()))
    assert len(by_patient) == COARSE.patients
    pairs = [volumes for volumes in by_patient.values() if len(volumes) == 2]
    assert pairs
    for first, second in pairs:
        assert second == pytest.approx(first, rel=0.12)
    ones = [volumes[0] for volumes in by_patient.values()]
    assert max(ones) > 1.15 * min(ones)


def test_tumours_are_there_or_not(upright: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    scans = list_scans(COARSE)
    assert 0 < sum(not scan.with_tumours for scan in scans) < len(scans)
    for scan, (_, _, label, spacing) in zip(scans, upright, strict=True):
        assert scan.with_tumours == bool((label == 2).any())
        parts, count = ndimage.label(label == 2)
        sizes = ndimage.sum_labels(label == 2, parts, range(1, count + 1)) * spacing.prod()
        # A ball of twice the largest diameter, for outlines with bumps, spikes and growth.
        assert all(size < 4 / 3 * np.pi * 55**3 for size in sizes)


def test_hounsfield_units(upright: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    for name, hu, label, spacing in upright:
        assert hu.min() >= -1024
        lung = hu[ndimage.binary_erosion(label == 1)]
        assert -920 < np.median(lung) < -740, name
        assert 2.5e6 < (label == 1).sum() * spacing.prod() < 8e6, name
        # The corner above the patient's front is air.
        assert np.mean(hu[:2, -2:]) == pytest.approx(-990, abs=35), name
        assert 0.005 < np.mean(hu > 250) < 0.08, name
        assert np.mean((hu > 0) & (hu < 200)) > 0.15, name
        core = hu[ndimage.binary_erosion(label == 2)]
        if core.size > 8:
            assert -120 < np.median(core) < 110, name


def test_tumours_touch_or_lie_in_a_lung(upright: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    for name, _, label, _ in upright:
        parts, count = ndimage.label(label == 2)
        near_lung = ndimage.binary_dilation(label == 1)
        assert all(near_lung[parts == part].any() for part in range(1, count + 1)), name


def test_all_patients_stand_upright_the_same_way(
    upright: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    for name, hu, label, _ in upright:
        lungs = label > 0
        right, front, up = (np.average(axis, weights=lungs) for axis in np.indices(label.shape))
        # Bone in the middle third from left to right: the spine lies behind the lungs' middle, the breastbone before.
        middle = slice(int(right) - 4, int(right) + 5)
        bone = hu[middle] > 200
        assert bone[:, : int(front)].sum() > 2 * bone[:, int(front) + 1 :].sum(), name
        # The heart takes room from the left lung, and RAS+ has the left on the low side.
        low = lungs[:, int(front) :, : int(up)]
        assert low[: int(right)].sum() < low[int(right) + 1 :].sum(), name
        # The lungs grow narrower towards the head.
        heights = np.flatnonzero(lungs.any(axis=(0, 1)))
        area = lungs.sum(axis=(0, 1))
        assert area[heights[-3]] < area[heights[len(heights) // 3]], name


def test_finer_voxels_show_the_same_tumour() -> None:
    # Orientation and spacing are drawn alike, so only the sampling differs.
    volumes = []
    for spacing in (3.0, 6.0):
        settings = replace(COARSE, spacing_mm=(spacing, spacing), slice_mm=(spacing, spacing))
        _, label, affine = make_case(settings, Scan(2, 1, True, 3))
        assert abs(np.linalg.det(affine)) == pytest.approx(spacing**3)
        volumes.append([(label == value).sum() * spacing**3 for value in (1, 2)])
    assert volumes[0][0] == pytest.approx(volumes[1][0], rel=0.03)
    # About a hundred voxels at 6 mm, most of them at the surface.
    assert volumes[0][1] == pytest.approx(volumes[1][1], rel=0.12)


def test_complete_set_is_left_alone(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    steps: list[int] = []
    write_phantom_lung(written, COARSE, workers=1, report=lambda done, total: steps.append(done))
    assert steps == []
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_other_content_is_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="other settings"):
        write_phantom_lung(written, replace(COARSE, seed=5), workers=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.nii").write_bytes(b"precious")
    with pytest.raises(UserError, match="holds no generated data set"):
        write_phantom_lung(tmp_path / "mine", COARSE, workers=1)
    assert files(tmp_path / "mine") == {"scan.nii": b"precious"}
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError):
            write_phantom_lung(root, COARSE, workers=1)


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom_lung(tmp_path / "set", replace(COARSE, patients=2), workers=1, report=stop)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once(tmp_path: Path) -> None:
    settings = replace(COARSE, patients=2, spacing_mm=(8, 8), slice_mm=(8, 8))
    context = get_context("spawn")
    writers = [
        context.Process(target=write_phantom_lung, args=(tmp_path / "set", settings), kwargs={"workers": 1})
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list((tmp_path / "set" / "imagesTr").iterdir())) == len(list_scans(settings))


def mistakes() -> Iterator[tuple[dict[str, object], str]]:
    yield {"patients": 0}, "patients"
    yield {"second_scan_rate": 1.5}, "second_scan_rate"
    yield {"spacing_mm": (5.0, 4.0)}, "spacing_mm"
    yield {"spacing_mm": (0.0, 4.0)}, "positive"
    yield {"orientations": ["RAS", "LRS"]}, "LRS"
    yield {"orientations": ["RASP"]}, "RASP"
    yield {"orientations": []}, "orientations"
    yield {"tumour_diameter_mm": (4.0, 30.0)}, "two voxels"
    yield {"tumours_per_patient": (0, 2)}, "tumours_per_patient"


@pytest.mark.parametrize(("change", "named"), list(mistakes()))
def test_settings_that_make_no_data_set(change: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        replace(PhantomSettings(), **change)  # type: ignore[arg-type]


def test_several_mistakes_are_named_together() -> None:
    with pytest.raises(UserErrors) as caught:
        PhantomSettings(patients=-1, tumour_free_rate=2.0)
    assert len(caught.value.errors) == 2


def test_lists_of_a_yaml_file_equal_tuples() -> None:
    loose = PhantomSettings(spacing_mm=[3.6, 4.6], orientations=list(PhantomSettings().orientations))  # type: ignore[arg-type]
    assert loose == PhantomSettings()
    assert json.loads(json.dumps(loose.to_json())) == loose.to_json()
