"""The import as a whole: the table, privacy, going on after an end, several modalities, the reader and the command."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset

from pipeline.cli import main
from pipeline.data.dicom import DicomSettings, ImportResult, import_dicom
from pipeline.data.readers import open_dataset
from pipeline.errors import UserError
from tests import dicom_files as files


def run(tmp_path: Path, workers: int = 1, **settings: object) -> ImportResult:
    return import_dicom(
        tmp_path / "in",
        tmp_path / "out",
        DicomSettings(**settings),  # type: ignore[arg-type]
        workers=workers,
    )


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def outlined(folder: Path, name: str = "GTV", **how: object) -> list[Dataset]:
    """A series and its structure set: a box of two voxels in slice 2."""
    images = files.series(folder / "image", **how)  # type: ignore[arg-type]
    files.structure_set(folder / "mask.dcm", images, {name: [files.box(files.lps(images), (0.5, 0.5), (2.5, 1.5), 2)]})
    return images


def content_of(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found[str(path.relative_to(folder))] = data + (gzip.decompress(data) if path.suffix == ".gz" else b"")
    return found


def test_nothing_private_leaves_the_dicom(tmp_path: Path) -> None:
    def private(number: int, dataset: Dataset) -> None:
        block = dataset.private_block(0x0011, "ACME", create=True)
        block.add_new(0x01, "LO", "Doe^Jane private")
        dataset.OperatorsName, dataset.InstitutionName = "Roe^Rick", "General Hospital"

    images = outlined(tmp_path / "in" / "Doe_Jane_19991231", change=private, description="Doe Jane thorax")
    assert not run(tmp_path).faults
    secrets = [files.NAME, "Doe", "Jane", files.PATIENT, files.DATE, "Roe", "General", "thorax"]
    secrets += [images[0].SeriesInstanceUID, images[0].StudyInstanceUID, images[2].SOPInstanceUID]
    for name, data in content_of(tmp_path / "out").items():
        for secret in secrets:
            assert secret.encode() not in data, (name, secret)
            assert secret not in name


def test_ids_are_the_same_each_time_and_differ_with_the_salt(tmp_path: Path) -> None:
    outlined(tmp_path / "in")
    ids = []
    for number, salt in enumerate([None, None, "pepper"]):
        import_dicom(tmp_path / "in", tmp_path / f"out{number}", DicomSettings(salt=salt))
        ids.append(rows(tmp_path / f"out{number}")[0])
    assert ids[0] == ids[1]
    assert ids[0]["patient_id"] != ids[2]["patient_id"]
    assert ids[0]["series"] != ids[2]["series"]
    assert ids[0]["case_id"] != ids[2]["case_id"]


@pytest.mark.parametrize("patient", ["../../../etc/passwd", "/abs", "a\\b:*?", "..", "x" * 64, "Müller 7"])
def test_ids_that_are_kept_cannot_lead_out_of_the_output(tmp_path: Path, patient: str) -> None:
    def foreign(number: int, dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"

    images = outlined(tmp_path / "in", patient=patient, change=foreign)
    assert not run(tmp_path, keep_ids=True).faults
    (row,) = rows(tmp_path / "out")
    assert row["patient_id"] == patient
    assert row["series"] == images[0].SeriesInstanceUID
    inside = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert inside == {Path(row["image"]).name}
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert open_dataset(
        {"format": "dicom", "root": str(tmp_path / "in"), "dicom": {"keep_ids": True}},
        task_kind="segmentation",
        cache=tmp_path / "cache",
    ).cases


def test_uids_that_are_paths_stay_inside(tmp_path: Path) -> None:
    def climb(number: int, dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = "../../evil"
        dataset.Modality = "../CT"

    files.series(tmp_path / "in", change=climb)
    assert not run(tmp_path, keep_ids=True).faults
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert (tmp_path / "out" / rows(tmp_path / "out")[0]["image"]).is_file()


def test_a_second_import_does_only_what_is_new(tmp_path: Path) -> None:
    outlined(tmp_path / "in" / "1", patient="1")
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
    outlined(tmp_path / "in" / "2", patient="2")
    result = run(tmp_path)
    assert (result.unchanged, len(result.cases)) == (1, 2)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert len(rows(tmp_path / "out")) == 2
    assert len(json.loads((tmp_path / "out" / "dataset.json").read_text())["training"]) == 2


def test_what_changed_or_was_damaged_is_converted_again(tmp_path: Path) -> None:
    outlined(tmp_path / "in" / "1", patient="1")
    run(tmp_path)
    (row,) = rows(tmp_path / "out")
    image = tmp_path / "out" / row["image"]
    whole = image.read_bytes()
    image.write_bytes(whole[:50])
    assert run(tmp_path).unchanged == 0
    assert image.read_bytes() == whole  # and the same bytes from the same voxels
    image.unlink()
    assert run(tmp_path).unchanged == 0
    assert run(tmp_path).unchanged == 1
    assert run(tmp_path, rois={"tumour": ["gtv"]}).unchanged == 0
    records = tmp_path / "out" / ".import.jsonl"
    records.write_text(records.read_text()[:40] + "\n{no json\n[]\n")
    assert run(tmp_path, rois={"tumour": ["gtv"]}).unchanged == 0
    assert {path.name for path in (tmp_path / "out" / "images").iterdir()} == {image.name}


def test_what_a_killed_import_left_is_swept_away(tmp_path: Path) -> None:
    outlined(tmp_path / "in")
    run(tmp_path)
    left = tmp_path / "out" / "images" / ".0123.partial"
    left.write_bytes(b"half")
    assert run(tmp_path).unchanged == 1
    assert not left.exists()


def test_what_the_source_no_longer_gives_is_deleted_here(tmp_path: Path) -> None:
    outlined(tmp_path / "in", patient="secret-id")
    run(tmp_path, keep_ids=True)
    assert any("secret-id" in name for name in content_of(tmp_path / "out"))
    run(tmp_path)
    for name, data in content_of(tmp_path / "out").items():
        assert "secret-id" not in name
        assert b"secret-id" not in data
    path = sorted((tmp_path / "in" / "image").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-40])
    assert run(tmp_path).faults
    assert not list((tmp_path / "out" / "images").iterdir())
    assert not rows(tmp_path / "out")


def test_processes_give_the_same_as_one(tmp_path: Path) -> None:
    for number in range(4):
        outlined(tmp_path / "in" / str(number), patient=str(number))
    files.series(tmp_path / "in" / "bad", leave_out=[2])
    first, second = run(tmp_path), None
    second = import_dicom(tmp_path / "in", tmp_path / "out2", workers=2)
    assert first.faults == second.faults
    assert "1 slice is missing" in first.faults[0].fault
    one, other = content_of(tmp_path / "out"), content_of(tmp_path / "out2")
    names = [name for name in one if not name.startswith(".") and name != "dataset.json"]
    assert len(names) == 4 + 4 + 1
    assert {name: one[name] for name in names} == {name: other[name] for name in names}


def test_a_foreign_folder_is_not_written_to(tmp_path: Path) -> None:
    files.series(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty and holds no earlier import"):
        run(tmp_path)
    with pytest.raises(UserError, match="the DICOM lie in the folder of the output"):
        import_dicom(tmp_path / "in", tmp_path)


def test_a_patient_without_id_is_told_and_two_patients_stay_two(tmp_path: Path) -> None:
    for number in range(2):
        files.series(tmp_path / "in" / str(number), patient="")
    result = run(tmp_path)
    assert len({row["patient_id"] for row in rows(tmp_path / "out")}) == 2
    assert any("have no PatientID" in note for note in result.notes)


def study(folder: Path, patient: str, modalities: list[str], frame: str | None = "1.2.3") -> dict[str, list[Dataset]]:
    made = {}
    for modality in modalities:
        made[modality] = files.series(
            folder / modality, modality=modality, patient=patient, study=f"1.2.840.{patient}", frame=frame
        )
    return made


def test_modalities_of_a_study_become_one_case(tmp_path: Path) -> None:
    for patient, modalities in (("1", ["CT", "PT", "MR"]), ("2", ["CT"])):
        made = study(tmp_path / "in" / patient, patient, modalities)
        images = made["CT"]
        box = files.box(files.lps(images), (0.5, 0.5), (2.5, 1.5), 2)
        files.structure_set(tmp_path / "in" / patient / "rs", images, {"GTV": [box]})
    result = run(tmp_path, modalities=["PT", "CT"])
    assert not result.faults
    assert result.notes[0] == "1 series are none of the modalities PT, CT and were left out"
    complete, partial = sorted(rows(tmp_path / "out"), key=lambda row: -len(row["modality"]))
    assert (complete["modality"], partial["modality"]) == ("PT CT", "CT")
    assert (complete["units"], partial["image:PT"]) == ("- HU", "")
    assert complete["image:CT"].endswith("_CT.nii.gz")
    dataset = open_dataset(
        {"format": "dicom", "root": str(tmp_path / "in"), "dicom": {"modalities": ["PT", "CT"]}},
        task_kind="segmentation",
        cache=tmp_path / "cache",
    )
    assert dataset.modalities == ("PT", "CT")
    assert sorted(len(case.images) for case in dataset.cases) == [1, 2]
    assert all(case.label is not None for case in dataset.cases)


def test_a_mask_drawn_on_the_second_modality_gets_the_grid_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    how = {"study": "1.2.840.1", "frame": "1.2.3"}
    files.series(folder / "PT", modality="PT", spacing=(1.0, 1.0), **how)  # type: ignore[arg-type]
    images = files.series(folder / "CT", **how)  # type: ignore[arg-type]
    box = files.box(files.lps(images), (0.5, 0.5), (2.5, 1.5), 2)  # 1.5 mm x 2 mm voxels: columns 1 and 2 of row 1
    files.structure_set(folder / "rs", images, {"GTV": [box]})
    result = run(tmp_path, modalities=["PT", "CT"])
    assert not result.faults
    assert any("put on the grid of the first modality" in note for note in result.notes)
    (row,) = rows(tmp_path / "out")
    pet, label = nib.load(tmp_path / "out" / row["image:PT"]), nib.load(tmp_path / "out" / row["label"])
    np.testing.assert_array_equal(pet.affine, label.affine)
    # marked is x from 0.75 to 3.75 mm, y from 1 to 3 mm; centres at whole mm, those on an edge go either way
    found = np.argwhere(np.asanyarray(label.dataobj))
    assert {tuple(v) for v in found} >= {(1, 2, 2), (2, 2, 2), (3, 2, 2)}
    assert set(found[:, 0]) == {1, 2, 3}
    assert set(found[:, 1]) <= {1, 2, 3}
    for path in (folder / "CT").iterdir():
        path.unlink()
    images = files.series(folder / "CT", study="1.2.840.1", frame="1.9.9")
    files.structure_set(folder / "rs", images, {"GTV": [box]})
    (fault,) = run(tmp_path, modalities=["PT", "CT"]).faults
    assert "another frame of reference than the first modality" in fault.fault


def test_series_of_one_modality_are_told_apart_by_description(tmp_path: Path) -> None:
    for description in ("Axial T1 pre", "Axial T2", "Localiser"):
        files.series(tmp_path / "in" / description, modality="MR", study="1.2.840.5", description=description)
    (fault,) = run(tmp_path, modalities=["MR", "CT"]).faults
    assert "has 3 series for image MR: 'Axial T1 pre', 'Axial T2', 'Localiser'" in fault.fault
    result = run(tmp_path, modalities={"t1": "MR *t1*", "t2": "MR *t2*"})
    assert not result.faults
    (row,) = rows(tmp_path / "out")
    assert row["image:t1"] != row["image:t2"]


def test_the_reader_imports_once(tmp_path: Path) -> None:
    outlined(tmp_path / "in" / "1", patient="1")
    outlined(tmp_path / "in" / "2", patient="2", name="lung")
    settings = {"format": "dicom", "root": str(tmp_path / "in"), "labels": {0: "background", 3: "gtv"}}

    def read() -> tuple[object, int]:
        done = []
        dataset = open_dataset(
            settings, task_kind="segmentation", cache=tmp_path / "cache", report=lambda now, total: done.append(now)
        )
        return dataset, len(done)

    dataset, converted = read()
    again, unchanged = read()
    assert (converted, unchanged) == (2, 0)
    assert dataset.cases == again.cases  # type: ignore[attr-defined]
    assert dataset.labels.values == {0: "background", 3: "gtv"}  # type: ignore[attr-defined]
    assert sorted(case.label is None for case in dataset.cases) == [False, True]  # type: ignore[attr-defined]
    outlined(tmp_path / "in" / "3", patient="3")
    assert len(read()[0].cases) == 3  # type: ignore[attr-defined]
    files.series(tmp_path / "plain")
    with pytest.raises(UserError, match="none of its 1 series is outlined"):
        open_dataset(
            {"format": "dicom", "root": str(tmp_path / "plain")}, task_kind="segmentation", cache=tmp_path / "cache"
        )
    files.series(tmp_path / "in" / "4", leave_out=[2])
    with pytest.raises(UserError, match="1 slice is missing"):
        read()


def test_the_command_says_what_it_refused_and_how_many_it_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outlined(tmp_path / "in" / "1", patient="1")
    words = ["import", f"source={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "workers=1"]
    assert main(words) == 0
    assert "1 cases converted, 1 with a mask. Voxel values: 1 GTV" in capsys.readouterr().out
    bad = files.series(tmp_path / "in" / "2", slices=8, leave_out=[3, 4])
    assert main(words) == 2
    said = capsys.readouterr().out
    assert "1 cases converted, 1 of them before, 1 with a mask; 1 refused (see above)" in said
    assert "2 slices" in said
    assert str(bad[0].SeriesInstanceUID)[:20] in said
    assert main([*words, "modalities=[../x]"]) == 2
    assert main(["import", f"source={tmp_path / 'absent'}", f"output={tmp_path / 'out'}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_imported_folder_is_a_table_that_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):

        def other(slice_: int, dataset: Dataset, seed: int = number) -> None:
            noise = np.random.default_rng([seed, slice_]).integers(0, 500, (files.ROWS, files.COLUMNS))
            dataset.PixelData = noise.astype(np.int16).tobytes()

        images = files.series(tmp_path / "in" / str(number), patient=str(number), change=other)
        box = files.box(files.lps(images), (0.5, 0.5), (5.5, 3.5), 2)
        files.structure_set(tmp_path / "in" / f"rs{number}", images, {"GTV": [box]})
    run(tmp_path)
    assert main(["check", "data=table", f"data.root={tmp_path / 'out'}", f"cache={tmp_path / 'cache'}"]) == 0
    words = ["check", "data=dicom", f"data.root={tmp_path / 'in'}", f"cache={tmp_path / 'cache'}"]
    assert main(words) == 0, capsys.readouterr().out


SARCOMA = {"CT": "CT", "MR": "MR_T1", "PT": "PET"}


def same_as(out: Path, row: dict[str, str], image: Path, label: Path) -> None:
    for found, truth, tolerance in ((row["image"], image, 1e-6), (row["label"], label, 0)):
        ours, theirs = nib.load(out / found), nib.load(truth)
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
        one, other = np.asanyarray(ours.dataobj), np.asanyarray(theirs.dataobj)
        if tolerance:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=0)
        else:
            both = 2 * np.count_nonzero((one > 0) & (other > 0)) / (np.count_nonzero(one) + np.count_nonzero(other))
            assert both >= 0.99


def test_the_sarcoma_patient_equals_its_nifti(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    truth = real_data("sts_sarcoma_ct_mr_pet") / "STS_019"
    result = import_dicom(real_data("sts_dicom_rtstruct"), tmp_path / "out", DicomSettings(rois={"GTV": ["GTV_Mass*"]}))
    assert not result.faults
    found = rows(tmp_path / "out")
    assert [row["modality"] for row in found] == ["CT", "MR", "PT"]
    for row in found:
        name = SARCOMA[row["modality"]]
        same_as(tmp_path / "out", row, truth / f"{name}_image.nii.gz", truth / f"{name}_mask.nii.gz")
    for data in content_of(tmp_path / "out").values():
        assert b"STS_019" not in data


def test_the_lung_phantom_equals_its_nifti(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    folder = real_data("ibsi_lung_ct_phantom")
    assert not import_dicom(folder, tmp_path / "out").faults
    (row,) = rows(tmp_path / "out")
    truth = folder / "nifti"
    same_as(tmp_path / "out", row, truth / "image" / "phantom.nii.gz", truth / "mask" / "mask.nii.gz")
