"""TIFF, NumPy and MetaImage files: pixels, spacing, masks written back, and files that mean harm."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image as Pillow

from pipeline.data.case import Case, Dataset, FileSource
from pipeline.data.image_io import (
    ImageError,
    files_of,
    mask_name,
    read_blocks,
    read_header,
    read_image,
    read_mask,
    write_mask,
)
from pipeline.data.integrity import check_dataset
from pipeline.data.labels import Labels

LABELS = Labels({0: "background", 1: "lung", 700: "tumour"})
SMALL = Labels({0: "background", 255: "lung"})
PAGES = np.random.default_rng(0).integers(0, 200, (5, 6, 7))  # page, row, column
STACK = PAGES.transpose(2, 1, 0)  # x, y, page


def tiff(path: Path, array: np.ndarray, **settings: Any) -> FileSource:
    tifffile.imwrite(path, array, **settings)
    return FileSource(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("settings", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"tile": (16, 16)}])
def test_pages_of_one_shape_are_the_slices_of_a_volume(tmp_path: Path, dtype: type, settings: dict[str, Any]) -> None:
    source = tiff(tmp_path / "a.tif", PAGES.astype(dtype), **settings)
    header, image = read_header(source), read_image(source)
    assert header.shape == (7, 6, 5)
    assert image.array.dtype == header.dtype == dtype
    assert (image.array[0] == STACK).all()
    assert header.doubts == ("no spacing is written; 1 mm is taken",)
    assert image.array.flags.writeable
    reading = next(read_blocks(source)[1])
    assert (reading == image.array).all()


def test_stacks_that_other_programs_write(tmp_path: Path) -> None:
    pages = [Pillow.fromarray(page.astype(np.uint8)) for page in PAGES]
    for compression in (None, "tiff_lzw", "packbits"):
        pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:], compression=compression)
        assert (read_image(FileSource(tmp_path / "p.tif")).array[0] == STACK).all()
    wide = [Pillow.fromarray(page.astype(np.uint16) * 300) for page in PAGES]
    wide[0].save(tmp_path / "w.tif", save_all=True, append_images=wide[1:], compression="tiff_lzw")
    assert (read_image(FileSource(tmp_path / "w.tif")).array[0] == STACK * 300).all()

    volume = SimpleITK.GetImageFromArray(PAGES.astype(np.uint16))
    volume.SetSpacing((0.5, 0.75, 3))
    SimpleITK.WriteImage(volume, str(tmp_path / "itk.tif"))
    found = read_image(FileSource(tmp_path / "itk.tif"))
    again = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "itk.tif")))
    assert (found.array[0] == again.transpose(2, 1, 0)).all()
    assert np.allclose(found.spacing, (0.5, 0.75, 1))  # ITK does not write the third
    assert read_header(FileSource(tmp_path / "itk.tif")).doubts == (
        "no distance between its slices is written; 1 mm is taken",
    )


@pytest.mark.parametrize(
    ("settings", "spacing"),
    [
        (
            {"imagej": True, "resolution": (2, 4), "metadata": {"spacing": 3, "unit": "mm", "axes": "ZYX"}},
            (0.5, 0.25, 3),
        ),
        (
            {"imagej": True, "resolution": (2, 4), "metadata": {"spacing": 3, "unit": "micron", "axes": "ZYX"}},
            (0.0005, 0.00025, 0.003),
        ),
        ({"imagej": True, "resolution": (2, 4), "metadata": {"spacing": 3, "unit": "pixel", "axes": "ZYX"}}, (1, 1, 1)),
        ({"resolution": (20, 10), "resolutionunit": "CENTIMETER"}, (0.5, 1, 1)),
        ({"resolution": (25.4, 50.8), "resolutionunit": "INCH"}, (1, 0.5, 1)),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, (1, 1, 1)),  # of a printer
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, (1, 1, 1)),
    ],
)
def test_spacing_is_taken_where_it_is_written_in_a_unit(
    tmp_path: Path, settings: dict[str, Any], spacing: tuple[float, ...]
) -> None:
    header = read_header(tiff(tmp_path / "a.tif", PAGES.astype(np.uint16), **settings))
    assert header.spacing == pytest.approx(spacing)
    assert bool(header.doubts) == (spacing[2] == 1)


def test_spacing_of_ome_and_of_pictures(tmp_path: Path) -> None:
    ome = {"axes": "CZYX"} | {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", (500, 250, 2000), strict=True)}
    array = np.stack([PAGES, PAGES + 1]).astype(np.uint16)
    source = tiff(tmp_path / "a.ome.tif", array, metadata=ome)
    header, image = read_header(source), read_image(source)
    assert header.channels == 2
    assert header.spacing == pytest.approx((0.5, 0.25, 2.0))  # micrometres
    assert (image.array[1] == STACK + 1).all()
    picture = tiff(tmp_path / "b.tif", PAGES[0].astype(np.uint16), resolution=(20, 10), resolutionunit="CENTIMETER")
    assert read_header(picture).spacing == pytest.approx((1.0, 0.5))  # rows lie along y
    assert (read_image(picture).array[0] == PAGES[0]).all()
    assert read_header(tiff(tmp_path / "c.tif", PAGES[0].astype(np.uint8))).doubts == ()


def test_channels_colours_and_white_as_zero(tmp_path: Path) -> None:
    both = np.stack([PAGES, PAGES + 1], axis=1).astype(np.uint8)
    image = read_image(tiff(tmp_path / "a.tif", both, imagej=True, metadata={"axes": "ZCYX"}))
    assert image.array.shape == (2, 7, 6, 5)
    assert (image.array[1] == STACK + 1).all()
    colour = np.stack([PAGES[0], PAGES[1], PAGES[2]], axis=-1).astype(np.uint16) * 300
    image = read_image(tiff(tmp_path / "b.tif", colour, photometric="rgb", compression="zlib"))
    assert (image.array == np.moveaxis(colour, -1, 0)).all()  # all 16 bits of it
    inverted = read_image(tiff(tmp_path / "c.tif", PAGES.astype(np.uint16), photometric="miniswhite"))
    assert (inverted.array[0] == 65535 - STACK).all()
    opaque = np.concatenate([colour, np.full((6, 7, 1), 65535, np.uint16)], axis=-1)
    settings: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    assert (read_image(tiff(tmp_path / "d.tif", opaque, **settings)).array == np.moveaxis(colour, -1, 0)).all()
    opaque[2, 2, 3] = 0
    with pytest.raises(ImageError, match="transparent"):
        read_image(tiff(tmp_path / "d.tif", opaque, **settings))
    with pytest.raises(ImageError, match="not a mask"):
        read_mask(FileSource(tmp_path / "b.tif"))
    grey = np.stack([PAGES[0]] * 3, axis=-1).astype(np.uint16)
    assert (read_mask(tiff(tmp_path / "e.tif", grey, photometric="rgb")).array[0] == PAGES[0]).all()


def damaged(path: Path, edit: Any) -> FileSource:
    path.write_bytes(edit(path.read_bytes()))
    return FileSource(path)


def test_damaged_tiffs_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 60000, (5, 64, 64)).astype(np.uint16)
    for name, settings in (
        ("a", {}),
        ("b", {"compression": "zlib"}),
        ("c", {"tile": (16, 16)}),
        ("d", {"bigtiff": True, "byteorder": ">", "compression": "zlib"}),
        ("e", {"imagej": True}),
    ):
        tiff(tmp_path / f"{name}.tif", noise, **settings)
        whole = (tmp_path / f"{name}.tif").read_bytes()
        for part in range(1, 12):  # wherever it is cut, directories and pixels
            (tmp_path / f"{name}.tif").write_bytes(whole[: len(whole) * part // 12])
            with pytest.raises(ImageError, match=r"truncated|damaged|too large|not a TIFF") as caught:
                read_image(FileSource(tmp_path / f"{name}.tif"))
            assert f"{name}.tif" in caught.value.cause

    def flip(data: bytes) -> bytes:
        return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]

    tiff(tmp_path / "d.tif", noise, compression="zlib")
    with pytest.raises(ImageError, match="truncated, corrupt"):
        read_image(damaged(tmp_path / "d.tif", flip))
    (tmp_path / "e.tif").write_text("no tiff")
    with pytest.raises(ImageError, match="not a TIFF"):
        read_image(FileSource(tmp_path / "e.tif"))
    with pytest.raises(ImageError, match="no single number"):
        read_image(tiff(tmp_path / "f.tif", np.zeros((3, 4), np.complex64)))
    with pytest.raises(ImageError, match="turned picture"):
        read_image(tiff(tmp_path / "g.tif", noise[0], extratags=[(274, 3, 1, 6, True)]))
    with pytest.raises(ImageError, match="axes"):
        array = np.zeros((2, 3, 6, 7), np.uint8)
        read_image(tiff(tmp_path / "h.tif", array, imagej=True, metadata={"axes": "TZYX"}))
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(ImageError, match="pipe"):
        read_header(FileSource(tmp_path / "pipe.tif"))


def test_every_byte_of_a_small_tiff_may_be_wrong(tmp_path: Path) -> None:
    whole = tiff(tmp_path / "a.tif", PAGES[:2].astype(np.uint8), compression="zlib").path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(150):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        (tmp_path / "b.tif").write_bytes(data)
        try:
            image = read_image(FileSource(tmp_path / "b.tif"))
            assert image.array.size <= 1 << 20
        except ImageError:
            pass


def test_a_piece_of_a_tiff_that_unpacks_to_more_than_its_place_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(80 << 20), 9)
    page = np.zeros((300, 300), np.float64)
    source = tiff(tmp_path / "a.tif", page, compression="zlib", rowsperstrip=300)
    with tifffile.TiffFile(source.path) as tif:
        tags = {name: tif.pages[0].tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")}
        kinds = {name: tif.pages[0].tags[name].dtype for name in tags}
    data = bytearray(source.path.read_bytes())
    for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(bomb))):
        form = "<I" if int(kinds[name]) == 4 else "<H" if int(kinds[name]) == 3 else "<Q"
        if form == "<H":
            pytest.skip("the counts of this tifffile are too narrow")
        data[tags[name] : tags[name] + struct.calcsize(form)] = struct.pack(form, value)
    source.path.write_bytes(bytes(data) + bomb)
    with pytest.raises(ImageError, match="unpacks to more"):
        read_image(source)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_headers_that_declare_more_than_the_file_can_hold(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 12000, 12000, 16, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(b"0"))
        + png_chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(png)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 20, 1 << 20)})
    (tmp_path / "a.npy").write_bytes(file.getvalue() + bytes(100))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", file.getvalue())
    tiff(tmp_path / "a.tif", np.zeros((64, 64), np.uint16), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[name].overwrite(60000)
    for name in ("a.png", "a.npy", "a.npz", "a.tif"):
        with pytest.raises(ImageError, match=r"too large|larger than"):
            read_header(FileSource(tmp_path / name))


def test_a_picture_is_none_that_runs_a_program(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="not a picture"):
        read_header(FileSource(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_in_a_file_of_their_own(tmp_path: Path, suffix: str) -> None:
    def save(array: np.ndarray) -> FileSource:
        path = tmp_path / f"a{suffix}"
        np.save(path, array) if suffix == ".npy" else np.savez_compressed(path, array)
        return FileSource(path)

    for dtype, stored in [(np.int16, np.int16), (">f4", np.float32), (np.float16, np.float32), (bool, np.uint8)]:
        array = (PAGES % 2).astype(dtype)
        source = save(array)
        header, image = read_header(source), read_image(source)
        assert image.array.dtype == header.dtype == stored
        assert (image.array[0] == array).all()
        assert header.doubts == ("no spacing is written; 1 mm is taken",)
    for shape, channels, spatial in [
        ((6, 7), 1, (6, 7)),
        ((6, 7, 3), 3, (6, 7)),
        ((1, 6, 7), 1, (6, 7)),
        ((4, 5, 6, 2), 2, (4, 5, 6)),
        ((1, 4, 5, 6), 1, (4, 5, 6)),
    ]:
        array = np.random.default_rng(0).random(shape)
        for order in ("C", "F"):
            image = read_image(save(np.asarray(array, order=order)))
            assert image.array.shape == (channels, *spatial)
        expected = array.reshape(1, *spatial) if channels == 1 else np.moveaxis(array, -1, 0)
        assert (image.array == expected).all()
    for wrong, fault in [
        (np.zeros(5), "no 2D or 3D"),
        (np.zeros((2, 0, 3)), "no 2D or 3D"),
        (np.zeros((2, 2), complex), "no single number"),
        (np.array([["a"]]), "no single number"),
        (np.array([[{}]], dtype=object), "no single number"),
    ]:
        with pytest.raises(ImageError, match=fault):
            read_header(save(wrong))
    save(PAGES)
    with pytest.raises(ImageError, match=r"too large|truncated"):
        read_image(damaged(tmp_path / f"a{suffix}", lambda data: data[:-9]))
    (tmp_path / f"a{suffix}").write_text("no array")
    with pytest.raises(ImageError, match="not a NumPy file"):
        read_header(FileSource(tmp_path / f"a{suffix}"))


def test_npz_with_names_and_spacing(tmp_path: Path) -> None:
    mask = (PAGES > 100).astype(np.uint8)
    np.savez(tmp_path / "a.npz", image=PAGES, label=mask, spacing=[0.5, 0.75, 3])
    source = FileSource(tmp_path / "a.npz")
    assert (read_image(source).array[0] == PAGES).all()
    assert (read_mask(source).array[0] == mask).all()
    assert read_header(source).spacing == (0.5, 0.75, 3.0)
    assert read_header(source).doubts == ()
    np.savez(tmp_path / "b.npz", one=PAGES, two=PAGES)
    with pytest.raises(ImageError, match="has no array 'image' among one, two"):
        read_header(FileSource(tmp_path / "b.npz"))
    for spacing in ([1, 2], [1, 2, 0], [1, 2, np.nan]):
        np.savez(tmp_path / "b.npz", image=PAGES, spacing=spacing)
        with pytest.raises(ImageError, match="spacing"):
            read_header(FileSource(tmp_path / "b.npz"))


def meta(folder: Path, name: str = "a.mhd", compress: bool = False) -> Path:
    volume = SimpleITK.GetImageFromArray(PAGES.astype(np.int16))
    volume.SetSpacing((0.5, 0.75, 3))
    SimpleITK.WriteImage(volume, str(folder / name), compress)
    return folder / name


@pytest.mark.parametrize("compress", [False, True])
def test_metaimage_in_two_files(tmp_path: Path, compress: bool) -> None:
    path = meta(tmp_path, compress=compress)
    data = path.with_suffix(".zraw" if compress else ".raw")
    image = read_image(FileSource(path))
    assert (image.array[0] == STACK).all()
    assert image.spacing == (0.5, 0.75, 3.0)
    assert files_of(path) == (path, data)
    assert files_of(meta(tmp_path, "b.mha")) == (tmp_path / "b.mha",)

    class Digest:
        fed = b""

        def update(self, part: bytes) -> None:
            self.fed += part

    digest = Digest()
    read_blocks(FileSource(path), digest=digest)
    assert digest.fed == path.read_bytes() + data.read_bytes()
    data.write_bytes(data.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"too large|truncated"):
        read_image(FileSource(path))
    data.unlink()
    with pytest.raises(ImageError, match=f"voxels in {data.name}: file not found"):
        read_header(FileSource(path))


def test_voxels_of_a_header_stay_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = meta(tmp_path / "in")
    (tmp_path / "in" / "a.raw").rename(tmp_path / "secret.raw")
    header = path.read_text()
    for name, fault in [
        ("../secret.raw", "outside of its folder"),
        (str(tmp_path / "secret.raw"), "outside of its folder"),
        ("C:\\secret.raw", "outside of its folder"),
        ("LIST 2", "several files"),
        ("slice%03d.raw 1 5 1", "several files"),
    ]:
        for suffix in (".mhd", ".mha"):
            file = path.with_suffix(suffix)
            file.write_text(header.replace("a.raw", name))
            with pytest.raises(ImageError, match=fault):
                read_header(FileSource(file))
    path.write_text(header.replace("NDims = 3", "NDims = 900"))
    with pytest.raises(ImageError, match="NDims"):
        read_header(FileSource(path))
    path.write_text("NDims = 3\n")
    with pytest.raises(ImageError, match="ElementDataFile"):
        read_header(FileSource(path))
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nencoding: raw\nendian: little\ndata file: {}\n\n"
    (tmp_path / "in" / "a.nrrd").write_text(nrrd.format("../secret.raw"))
    with pytest.raises(ImageError, match="outside of its folder"):
        read_header(FileSource(tmp_path / "in" / "a.nrrd"))
    (tmp_path / "a.nrrd").write_text(nrrd.format("secret.raw"))
    assert (read_image(FileSource(tmp_path / "a.nrrd")).array[0] == STACK).all()
    assert files_of(tmp_path / "a.nrrd") == (tmp_path / "a.nrrd", tmp_path / "secret.raw")


def test_uncompressed_metaimage_and_nrrd_cut_short(tmp_path: Path) -> None:
    for name in ("a.mha", "a.nrrd"):
        path = meta(tmp_path, name)
        with pytest.raises(ImageError, match=r"too large|truncated"):
            read_image(damaged(path, lambda data: data[:-10]))


@pytest.mark.parametrize("name", ["a.tif", "b.tiff", "a.npy", "a.npz"])
@pytest.mark.parametrize("shape", [(7, 6, 5), (6, 7)])
def test_masks_go_back_into_the_images_own_format(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    like = FileSource(tmp_path / name)
    array = np.zeros(shape, np.uint16)
    spacing = (0.5, 0.75, 3.0)[: len(shape)]
    if name.endswith(".npy"):
        np.save(like.path, array)
    elif name.endswith(".npz"):
        np.savez(like.path, image=array, spacing=spacing)
    elif len(shape) == 3:
        settings: dict[str, Any] = {"metadata": {"spacing": 3, "unit": "mm", "axes": "ZYX"}}
        tiff(like.path, array.transpose(2, 1, 0), resolution=(20, 10 / 0.75), resolutionunit="CENTIMETER", **settings)
    else:
        tiff(like.path, array, resolution=(10 / 0.75, 20), resolutionunit="CENTIMETER")
    indices = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    path = tmp_path / "masks" / mask_name(like)
    assert path.name == name
    write_mask(path, indices, LABELS, like)
    found = read_mask(FileSource(path))
    assert (found.array[0] == np.array([0, 1, 700])[indices]).all()
    assert np.allclose(found.affine, read_header(like).affine)
    assert found.spatial_dims == len(shape)
    if not name.endswith(".npy"):
        assert found.spacing == pytest.approx(spacing)
    assert [entry.name for entry in path.parent.iterdir()] == [name]
    write_mask(path, indices // 2, SMALL, like)
    assert read_mask(FileSource(path)).array.dtype == np.uint8


def test_masks_of_formats_that_cannot_hold_them(tmp_path: Path) -> None:
    assert mask_name(FileSource(Path("a.mhd"))) == "a.mha"
    assert mask_name(FileSource(Path("a.JPEG"))) == "a.png"
    assert mask_name(FileSource(Path("a.bmp"))) == "a.png"
    like = FileSource(meta(tmp_path))
    write_mask(tmp_path / "m.mha", np.ones((7, 6, 5), np.uint8), LABELS, like)
    assert np.allclose(read_mask(FileSource(tmp_path / "m.mha")).affine, read_header(like).affine)


def pair(path: Path, image: np.ndarray | None, other: str = "label") -> Case:
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[1:3] = 1
    np.savez(path, image=mask + 3 if image is None else image, **{other: mask}, spacing=[1, 1, 1])
    return Case(path.stem, path.stem, {"image": FileSource(path)}, FileSource(path))


def dataset_of(root: Path, cases: list[Case]) -> Dataset:
    labels = Labels({1: "lung"})
    return Dataset("x", root, "segmentation", tuple(cases), ("image",), labels, (), 3)


def test_one_npz_may_be_image_and_mask(tmp_path: Path) -> None:
    cases = [
        pair(tmp_path / f"{name}.npz", np.random.default_rng(seed).random((6, 6, 6)))
        for seed, name in enumerate(["a", "b", "c", "d", "e"])
    ]
    assert not check_dataset(dataset_of(tmp_path, cases)).errors
    np.save(tmp_path / "f.npy", np.ones((6, 6, 6), np.uint8))
    both = FileSource(tmp_path / "f.npy")
    result = check_dataset(dataset_of(tmp_path, [*cases, Case("f", "f", {"image": both}, both)]))
    assert {fault.rule for fault in result.errors if fault.case_id == "f"} >= {"label_is_image"}


def test_a_changed_file_of_voxels_is_read_again(tmp_path: Path) -> None:
    cases = []
    for seed in range(5):
        array = np.random.default_rng(seed).integers(0, 99, (6, 6, 6)).astype(np.int16)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(tmp_path / f"{seed}.mhd"))
        mask = np.zeros((6, 6, 6), np.uint8)
        mask[1 : seed + 2] = 1
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(mask), str(tmp_path / f"{seed}_mask.mhd"))
        sources = [FileSource(tmp_path / f"{seed}{end}.mhd") for end in ("", "_mask")]
        cases.append(Case(str(seed), str(seed), {"image": sources[0]}, sources[1]))
    dataset = dataset_of(tmp_path, cases)
    first = check_dataset(dataset, cache=tmp_path / "cache")
    assert not first.errors
    assert check_dataset(dataset, cache=tmp_path / "cache").remembered == 10
    raw = tmp_path / "3_mask.raw"
    raw.write_bytes(bytes([9]) + raw.read_bytes()[1:])  # its header stays as it was
    again = check_dataset(dataset, cache=tmp_path / "cache")
    assert again.remembered < 10
    assert [fault.file for fault in again.errors] == ["3_mask.mhd"]
