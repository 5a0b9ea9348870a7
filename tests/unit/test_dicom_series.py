"""DICOM series become volumes, or are refused with a reason."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from pipeline.data.dicom import DicomSettings, ImportResult, import_dicom
from pipeline.errors import UserError
from tests import dicom_files as files

OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


def run(tmp_path: Path, **settings: object) -> ImportResult:
    return import_dicom(tmp_path / "in", tmp_path / "out", DicomSettings(**settings))  # type: ignore[arg-type]


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def only_image(tmp_path: Path) -> nib.Nifti1Image:
    (row,) = rows(tmp_path)
    return nib.load(tmp_path / "out" / row["image"])


def expected(slices: int = files.SLICES) -> np.ndarray:
    """HU (columns, rows, slices)."""
    return np.stack([files.stored(number).T.astype(int) - 1000 for number in range(slices)], axis=-1)


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_a_series_in_any_order_of_files_becomes_a_volume_in_hu(tmp_path: Path, implicit: bool) -> None:
    files.series(tmp_path / "in" / "deep" / "er", implicit=implicit)
    (tmp_path / "in" / "notes.txt").write_text("no DICOM at all, but in the folder")
    result = run(tmp_path)
    image = only_image(tmp_path)
    assert not result.faults
    assert result.notes == ["passed over: 1 files that are no DICOM"]
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), expected())
    # LPS (-10, -20, 30) with rows 2 mm and columns 1.5 mm apart is RAS (10, 20, 30) with both axes reversed
    np.testing.assert_allclose(image.affine, [[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_an_oblique_series_keeps_the_place_of_every_voxel(tmp_path: Path) -> None:
    written = files.series(tmp_path / "in", orientation=OBLIQUE)
    assert not run(tmp_path).faults
    image = only_image(tmp_path)
    index = np.array([7, 2, 4, 1])
    in_lps = files.lps(written) @ index
    np.testing.assert_allclose((image.affine @ index)[:3], in_lps[:3] * [-1, -1, 1], atol=1e-4)
    assert np.asanyarray(image.dataobj)[7, 2, 4] == files.stored(4)[2, 7] - 1000


def test_slices_that_run_against_the_normal_are_sorted_along_it(tmp_path: Path) -> None:
    files.series(tmp_path / "in", step=-3.0)
    assert not run(tmp_path).faults
    image = only_image(tmp_path)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), expected()[:, :, ::-1])
    assert image.affine[2, 3] == pytest.approx(30 - 4 * 3)
    assert image.affine[2, 2] == pytest.approx(3)


def test_every_slice_is_rescaled_with_its_own_slope(tmp_path: Path) -> None:
    def units(number: int, dataset: Dataset) -> None:
        dataset.Units = "BQML"

    files.series(tmp_path / "in", modality="PT", scale=lambda number: (0.25 * (number + 1), 0), change=units)
    assert not run(tmp_path).faults
    image = only_image(tmp_path)
    assert image.get_data_dtype() == np.float32
    values = np.asanyarray(image.dataobj)
    for number in range(files.SLICES):
        np.testing.assert_array_equal(values[:, :, number], files.stored(number).T * 0.25 * (number + 1))
    assert rows(tmp_path)[0]["units"] == "BQML"


def test_whole_values_stay_whole_whatever_the_slope(tmp_path: Path) -> None:
    def even(number: int, dataset: Dataset) -> None:
        dataset.PixelData = (2 * files.stored(number)).tobytes()

    files.series(tmp_path / "in", scale=lambda number: (0.5, 0), change=even)
    run(tmp_path)
    assert only_image(tmp_path).get_data_dtype() == np.int16


def test_values_beyond_16_bits_get_32(tmp_path: Path) -> None:
    files.series(tmp_path / "in", scale=lambda number: (1000, 0))
    run(tmp_path)
    image = only_image(tmp_path)
    assert image.get_data_dtype() == np.int32
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), (expected() + 1000) * 1000)


def test_one_slice_is_as_thick_as_its_header_says(tmp_path: Path) -> None:
    files.series(tmp_path / "in", slices=1, step=4.5)
    assert not run(tmp_path).faults
    assert only_image(tmp_path).header.get_zooms() == pytest.approx((1.5, 2.0, 4.5))


def test_slices_further_apart_than_their_header_says_are_told(tmp_path: Path) -> None:
    files.series(tmp_path / "in", leave_out=[1, 3])
    result = run(tmp_path)
    assert not result.faults
    assert result.notes[-1].endswith("slices of image lie 6 mm apart, its header says 3 mm: were some lost?")


def at(number: int, change: Callable[[Dataset], None]) -> files.Change:
    return lambda n, dataset: change(dataset) if n == number else None


def cut(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-10]


def turn(dataset: Dataset) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def resize(dataset: Dataset) -> None:
    dataset.Rows, dataset.PixelData = 3, dataset.PixelData[: 3 * files.COLUMNS * 2]


def colour(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = dataset.PixelData * 3


def tilt(number: int, dataset: Dataset) -> None:
    dataset.ImagePositionPatient = [-10, -20 + number, 30 + 3 * number]


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "gap": ({"leave_out": [2]}, "1 slice is missing: a gap of 6 mm"),
    "position taken twice": (
        {"change": at(3, lambda d: setattr(d, "ImagePositionPatient", [-10, -20, 36]))},
        "duplicate positions",
    ),
    "orientation": ({"change": at(2, turn)}, "mixed orientations"),
    "shape": ({"change": at(2, resize)}, "mixed shapes: 3 x 9"),
    "spacing": ({"change": at(2, lambda d: setattr(d, "PixelSpacing", [2, 1.6]))}, "mixed pixel spacings"),
    "irregular": (
        {"change": at(2, lambda d: setattr(d, "ImagePositionPatient", [-10, -20, 37]))},
        "irregular distances between slices, from 2 to 4 mm",
    ),
    "tilted gantry": ({"change": tilt}, "tilted by 18.4 degrees"),
    "no position": (
        {"change": at(1, lambda d: d.__delattr__("ImagePositionPatient"))},
        "ImagePositionPatient is missing",
    ),
    "no spacing": ({"change": at(1, lambda d: d.__delattr__("PixelSpacing"))}, "PixelSpacing is missing"),
    "no orientation": ({"change": at(1, lambda d: d.__delattr__("ImageOrientationPatient"))}, "Orientation"),
    "skew": ({"orientation": (1, 0, 0, 0.5, 0.8, 0)}, "not two perpendicular directions"),
    "pixels cut": ({"change": at(4, cut)}, "truncated or damaged"),
    "no pixels": ({"change": at(4, lambda d: d.__delattr__("PixelData"))}, "no pixel data"),
    "colour": ({"change": lambda n, d: colour(d)}, "PhotometricInterpretation RGB"),
    "slope 0": ({"change": at(0, lambda d: setattr(d, "RescaleSlope", 0))}, "RescaleSlope is 0"),
    "zero spacing": ({"change": lambda n, d: setattr(d, "PixelSpacing", [0, 0])}, "PixelSpacing is [0, 0]"),
    "another patient": ({"change": at(3, lambda d: setattr(d, "PatientID", "other"))}, "PatientID"),
    "cine": (
        {
            "slices": 1,
            "change": lambda n, d: (setattr(d, "NumberOfFrames", 2), setattr(d, "PixelData", d.PixelData * 2)),
        },
        "multi-frame image of a kind that gives no position",
    ),
    "no thickness": ({"slices": 1, "change": lambda n, d: d.__delattr__("SliceThickness")}, "one slice and neither"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_series_is_refused_by_name_and_the_others_are_converted(tmp_path: Path, name: str) -> None:
    how, said = REFUSED[name]
    good = files.series(tmp_path / "in" / "good", patient="good")
    bad = files.series(tmp_path / "in" / "bad", **how)  # type: ignore[arg-type]
    result = run(tmp_path)
    (fault,) = result.faults
    assert said in fault.fault
    assert fault.series == bad[0].SeriesInstanceUID != good[0].SeriesInstanceUID
    assert Path(fault.file).parent == tmp_path / "in" / "bad"
    assert fault.remedy
    assert len(rows(tmp_path)) == 1


def test_the_same_image_twice_is_called_a_copy(tmp_path: Path) -> None:
    files.series(tmp_path / "in")
    first = sorted((tmp_path / "in").iterdir())[0]
    (tmp_path / "in" / "copy").write_bytes(first.read_bytes())
    (fault,) = run(tmp_path).faults
    assert "the same image twice" in fault.fault
    assert "copy" in fault.fault


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, kept: float) -> None:
    files.series(tmp_path / "in")
    path = sorted((tmp_path / "in").iterdir())[2]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    result = run(tmp_path)
    assert result.faults
    assert any(fault.file == str(path) for fault in result.faults)


def test_headers_that_declare_too_much_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    def huge(number: int, dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 65535

    files.series(tmp_path / "in", change=huge)
    (fault,) = run(tmp_path).faults
    assert "too large: the headers of the series declare 21,474,180,625"[:30] in fault.fault
    files.series(tmp_path / "in2", slices=1, change=lambda n, d: setattr(d, "Rows", 20000))
    result = import_dicom(tmp_path / "in2", tmp_path / "out2")
    assert "truncated" in result.faults[0].fault


def test_screenshots_and_localizers_are_passed_over(tmp_path: Path) -> None:
    def localizer(number: int, dataset: Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def screenshot(number: int, dataset: Dataset) -> None:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        del dataset.ImagePositionPatient

    files.series(tmp_path / "in" / "a")
    files.series(tmp_path / "in" / "b", slices=2, change=localizer)
    files.series(tmp_path / "in" / "c", slices=1, change=screenshot)
    result = run(tmp_path)
    assert not result.faults
    assert result.notes == ["passed over: 1 localizer series, 1 secondary captures (screenshots)"]
    assert len(rows(tmp_path)) == 1


def test_a_compressed_series_is_decoded(tmp_path: Path) -> None:
    files.series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        dataset = dcmread(path)
        dataset.compress(RLELossless, encoding_plugin="pydicom")
        dataset.save_as(path)
    assert not run(tmp_path).faults
    np.testing.assert_array_equal(np.asanyarray(only_image(tmp_path).dataobj), expected())


def test_lossless_jpeg_is_decoded_although_pydicom_has_no_decoder_for_it(tmp_path: Path) -> None:
    """SimpleITK's GDCM writes and reads it; the values must come back without its own rescaling."""
    import SimpleITK as sitk  # noqa: N813

    written = files.series(tmp_path / "plain", modality="MR", scale=lambda number: (2, 5))
    (tmp_path / "in").mkdir()
    for number, dataset in enumerate(written):
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "jpeg.dcm"))
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(files.stored(number)[None]))
        compressed = dcmread(tmp_path / "jpeg.dcm")
        assert compressed.file_meta.TransferSyntaxUID.name.startswith("JPEG Lossless")
        for element in compressed.group_dataset(0x0028):
            if element.tag not in (0x00281052, 0x00281053):
                dataset[element.tag] = element
        dataset.PixelSpacing, dataset.PixelData = [2, 1.5], compressed.PixelData
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
        dataset.save_as(tmp_path / "in" / f"{number}.dcm")
    assert not run(tmp_path).faults
    np.testing.assert_array_equal(np.asanyarray(only_image(tmp_path).dataobj), (expected() + 1000) * 2 + 5)


def test_a_syntax_that_nothing_decodes_names_the_remedy(tmp_path: Path) -> None:
    def high_throughput(number: int, dataset: Dataset) -> None:
        from pydicom.encaps import encapsulate

        dataset.PixelData = encapsulate([b"\0" * 64])
        dataset["PixelData"].is_undefined_length = True

    files.series(tmp_path / "in", change=high_throughput)
    for path in (tmp_path / "in").iterdir():
        content = path.read_bytes()
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        dataset.save_as(path)
        assert path.read_bytes() != content
    (fault,) = run(tmp_path).faults
    assert "High-Throughput JPEG 2000" in fault.fault
    assert "no installed decoder" in fault.fault
    assert "gdcmconv" in fault.remedy


def test_a_deflated_bomb_is_refused_without_unpacking_it(tmp_path: Path) -> None:
    import zlib

    (dataset,) = files.series(tmp_path / "in", slices=1)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "in" / "00_0"
    dataset.preamble = b"\0" * 128
    dataset.save_as(path, enforce_file_format=True)
    result = run(tmp_path)
    assert not result.faults
    content = path.read_bytes()
    begin = 128 + 4 + 12 + int.from_bytes(content[140:144], "little")
    squeeze = zlib.compressobj(9, wbits=-15)
    zeros = b"\0" * (1 << 24)
    bomb = b"".join([*(squeeze.compress(zeros) for _ in range(20)), squeeze.flush()])
    path.write_bytes(content[:begin] + bomb)
    assert len(bomb) < 1 << 20
    (fault,) = run(tmp_path).faults
    assert "unpacks to more than" in fault.fault
    path.write_bytes(content[132:begin] + bomb)
    (fault,) = run(tmp_path).faults
    assert "deflated and it has no preamble" in fault.fault


def test_a_file_without_a_preamble_is_read(tmp_path: Path) -> None:
    written = files.series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    for number, dataset in enumerate(written):
        dataset.preamble = None
        with (tmp_path / "in" / str(number)).open("wb") as file:
            file.write(_without_meta(dataset))
    assert not run(tmp_path).faults
    np.testing.assert_array_equal(np.asanyarray(only_image(tmp_path).dataobj), expected())


def _without_meta(dataset: Dataset) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def test_a_folder_without_dicom_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x" * 400)
    with pytest.raises(UserError, match="holds no DICOM images"):
        run(tmp_path)
    with pytest.raises(UserError, match="folder not found"):
        import_dicom(tmp_path / "absent", tmp_path / "out")


@pytest.mark.parametrize("content", [b"\x08\x00\x05\x00CS\x0a\x00" + b"x" * 300, b"\0" * 128 + b"DICM" + b"\xff" * 500])
def test_garbage_that_begins_like_dicom_is_no_traceback(tmp_path: Path, content: bytes) -> None:
    files.series(tmp_path / "in")
    (tmp_path / "in" / "garbage").write_bytes(content)
    run(tmp_path)
    assert len(rows(tmp_path)) == 1


def test_an_enhanced_multiframe_file_is_a_volume(tmp_path: Path) -> None:
    written = files.series(tmp_path / "single")
    dataset = enhanced(written, order=[3, 0, 4, 1, 2])
    files.write(tmp_path / "in" / "one.dcm", dataset)
    assert not run(tmp_path).faults
    np.testing.assert_array_equal(np.asanyarray(only_image(tmp_path).dataobj), expected())
    assert only_image(tmp_path).affine[2].tolist() == [0, 0, 3, 30]


def test_an_enhanced_file_with_a_frame_missing_or_unplaced_is_refused(tmp_path: Path) -> None:
    written = files.series(tmp_path / "single")
    files.write(tmp_path / "in" / "gap.dcm", enhanced(written, order=[0, 1, 3, 4]))
    unplaced = enhanced(files.series(tmp_path / "other"), order=[0, 1, 2])
    del unplaced.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    files.write(tmp_path / "in" / "unplaced.dcm", unplaced)
    said = sorted(fault.fault for fault in run(tmp_path).faults)
    assert said[0].startswith("1 slice is missing")
    assert said[1].startswith("frame 2 has no position")


def enhanced(images: list[Dataset], order: list[int]) -> Dataset:
    first = images[0]
    dataset = files.base(
        "1.2.840.10008.5.1.4.1.1.2.1", "CT", "p", first.StudyInstanceUID, first.SeriesInstanceUID, "1.2.3"
    )
    for keyword in (
        *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored"),
        *("HighBit", "PixelRepresentation"),
    ):
        setattr(dataset, keyword, getattr(first, keyword))
    shared, measures, plane, scale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, 3
    plane.ImageOrientationPatient = first.ImageOrientationPatient
    scale.RescaleSlope, scale.RescaleIntercept = 1, -1000
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [scale]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], []
    for number in order:
        own, position = Dataset(), Dataset()
        position.ImagePositionPatient = images[number].ImagePositionPatient
        own.PlanePositionSequence = [position]
        dataset.PerFrameFunctionalGroupsSequence.append(own)
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = b"".join(images[number].PixelData for number in order)
    return dataset
