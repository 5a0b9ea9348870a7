"""Images read and masks written, format by format."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image as Pillow

from pipeline.data.case import ArraySource, FileSource
from pipeline.data.image_io import (
    ImageError,
    mask_name,
    nifti,
    read_blocks,
    read_header,
    read_image,
    read_mask,
    stem_of,
    write_mask,
)
from pipeline.data.labels import Labels

AFFINE = np.array([[-0.7, 0.1, 0, 12], [0.1, 0.7, 0, -30], [0, 0, 2.5, 5], [0, 0, 0, 1.0]])
LABELS = Labels({0: "background", 255: "lung"})


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, **codes: int) -> Path:
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, codes.get("sform", 1))
    image.set_qform(affine, codes.get("qform", 1))
    nib.save(image, path)
    return path


def voxels(shape: tuple[int, ...], dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64, ">i2", ">f4"])
def test_nifti_agrees_with_nibabel(tmp_path: Path, suffix: str, dtype: type) -> None:
    array = voxels((5, 6, 7)).astype(dtype)
    path = tmp_path / f"a{suffix}"
    nib.Nifti1Image(array, AFFINE, dtype=array.dtype).to_filename(path)
    image = read_image(FileSource(path))
    assert image.array.shape == (1, 5, 6, 7)
    assert image.array.dtype == np.dtype(dtype).newbyteorder("=")
    assert (image.array[0] == array).all()
    assert np.allclose(image.affine, nib.load(path).affine)
    assert image.spacing == pytest.approx((np.sqrt(0.5), np.sqrt(0.5), 2.5), rel=1e-6)
    assert image.spatial_dims == 3
    assert image.array.flags.writeable


def test_rescaled_nifti_is_float_and_keeps_its_values(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels((4, 4, 4)), AFFINE)
    image.header.set_slope_inter(0.5, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    found = read_image(FileSource(tmp_path / "a.nii.gz")).array
    assert found.dtype == np.float32
    assert np.allclose(found[0], nib.load(tmp_path / "a.nii.gz").get_fdata())


def test_channels_stand_first_and_nifti2_is_read(tmp_path: Path) -> None:
    array = voxels((3, 4, 5, 2))
    nib.Nifti2Image(array, AFFINE).to_filename(tmp_path / "a.nii.gz")
    header = read_header(FileSource(tmp_path / "a.nii.gz"))
    assert (header.shape, header.channels, header.dtype) == ((3, 4, 5), 2, np.int16)
    assert (read_image(FileSource(tmp_path / "a.nii.gz")).array == np.moveaxis(array, -1, 0)).all()


def test_a_single_slice_stays_a_volume_and_two_axes_are_2d(tmp_path: Path) -> None:
    assert read_header(FileSource(write_nifti(tmp_path / "a.nii", voxels((5, 6, 1))))).shape == (5, 6, 1)
    assert read_header(FileSource(write_nifti(tmp_path / "b.nii", voxels((5, 6))))).shape == (5, 6)


def test_large_volumes_stream_in_blocks_and_the_file_is_hashed_on_the_way(tmp_path: Path) -> None:
    array = np.zeros((128, 128, 128), np.int16)  # 4 MiB that shrink a thousandfold
    array[5] = 7
    path = write_nifti(tmp_path / "a.nii.gz", array)
    digest = hashlib.sha256()
    header, blocks = read_blocks(FileSource(path), digest=digest)
    sizes = [block.size for block in blocks]
    assert sum(sizes) == array.size
    assert max(sizes) * 2 <= nifti.BLOCK
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert header.nbytes == array.nbytes


def test_gzip_of_several_members_and_padding_is_whole(tmp_path: Path) -> None:
    array = voxels((20, 20, 20))
    plain = write_nifti(tmp_path / "a.nii", array).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]) + b"\0" * 512)
    assert (read_image(FileSource(path)).array[0] == array).all()


def test_sform_is_preferred_and_the_other_form_is_doubted(tmp_path: Path) -> None:
    other = AFFINE.copy()
    other[0, 3] += 30
    image = nib.Nifti1Image(voxels((4, 4, 4)), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(other, 1)
    nib.save(image, tmp_path / "a.nii")
    header = read_header(FileSource(tmp_path / "a.nii"))
    assert np.allclose(header.affine, AFFINE)
    assert "sform and qform disagree by up to 30" in header.doubts[0]

    header = read_header(FileSource(write_nifti(tmp_path / "b.nii", voxels((4, 4, 4)), sform=0)))
    assert np.allclose(header.affine, AFFINE, atol=1e-5)
    header = read_header(FileSource(write_nifti(tmp_path / "c.nii", voxels((4, 4, 4)), sform=0, qform=0)))
    assert "left and right are unknown" in header.doubts[0]


def _broken(path: Path, edit: Callable[[bytearray], bytes | bytearray]) -> FileSource:
    plain = bytearray(write_nifti(path.with_name("good.nii"), voxels((16, 16, 16))).read_bytes())
    path.write_bytes(edit(plain))
    return FileSource(path)


def _set(plain: bytearray, at: int, dtype: str, *values: float) -> bytearray:
    new = np.array(values, dtype).tobytes()
    plain[at : at + len(new)] = new
    return plain


@pytest.mark.parametrize(
    ("name", "edit", "fault"),
    [
        ("a.nii.gz", lambda b: gzip.compress(bytes(b))[:-3000], "truncated"),
        ("a.nii.gz", lambda b: gzip.compress(bytes(b))[:-4], "truncated"),
        ("a.nii.gz", lambda b: gzip.compress(bytes(b[:-2000])), "truncated"),
        ("a.nii.gz", lambda b: gzip.compress(bytes(b), 0).replace(bytes(b[2000:2004]), b"xxxx"), "corrupt"),
        ("a.nii.gz", lambda b: b"not gzip and not NIfTI", "not a NIfTI"),
        ("a.nii", lambda b: b[:-2], "too large for a file"),
        ("a.nii", lambda b: b"", "empty"),
        ("a.nii", lambda b: b[:200], "not a NIfTI"),
        ("a.nii", lambda b: b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("a.nii", lambda b: _set(b, 40, "<i2", 3, 30000, 30000, 30000), "too large"),
        ("a.nii", lambda b: _set(b, 40, "<i2", 3, 16, 0, 16), "dimensions"),
        ("a.nii", lambda b: _set(b, 40, "<i2", 3, 16, -16, 16), "dimensions"),
        ("a.nii", lambda b: _set(b, 40, "<i2", 5, 2, 2, 2, 2, 2), "dimensions"),
        ("a.nii", lambda b: _set(b, 70, "<i2", 128), "RGB"),
        ("a.nii", lambda b: _set(b, 70, "<i2", 32), "data type"),
        ("a.nii", lambda b: _set(b, 70, "<i2", 999), "data type"),
        ("a.nii", lambda b: _set(b, 108, "<f4", np.nan), "vox_offset"),
        ("a.nii", lambda b: _set(b, 108, "<f4", -8), "vox_offset"),
        ("a.nii", lambda b: _set(_set(b, 112, "<f4", 2), 116, "<f4", np.inf), "scl_inter"),
        ("a.nii", lambda b: _set(_set(b, 252, "<i2", 1, 0), 80, "<f4", -1), "spacing"),
        ("a.nii", lambda b: _set(_set(b, 252, "<i2", 0, 0), 84, "<f4", np.nan), "spacing"),
        ("a.nii", lambda b: _set(_set(b, 252, "<i2", 0, 1), 280, "<f4", *[0] * 12), "sform is degenerate"),
        ("a.nii", lambda b: _set(_set(b, 252, "<i2", 0, 1), 280, "<f4", np.nan), "sform is degenerate"),
        ("a.nii", lambda b: _set(b, 344, "u1", *b"ni1\0"), "hdr/.img"),
    ],
)  # fmt: skip
def test_damaged_nifti_is_named_with_its_fault(
    tmp_path: Path, name: str, edit: Callable[[bytearray], bytes], fault: str
) -> None:
    source = _broken(tmp_path / name, edit)
    with pytest.raises(ImageError, match=fault) as caught:
        read_image(source)
    assert str(source.path) in caught.value.cause


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    (tmp_path / "gone.nii").symlink_to("nowhere")
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.nii")
    for name, fault in [("loop", "link"), ("gone", "link"), ("folder", "folder"), ("pipe", "pipe"), ("no", "missing")]:
        for read in (read_header, read_image):
            with pytest.raises(ImageError, match=fault):
                read(FileSource(tmp_path / f"{name}.nii"))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_world_is_turned_to_ras(tmp_path: Path, suffix: str) -> None:
    array = voxels((4, 5, 6))  # i, j, k
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"), True)
    found = read_image(FileSource(tmp_path / f"a{suffix}"))
    assert (found.array[0] == array).all()
    assert np.allclose(found.affine, [[-0.5, 0, 0, -10], [0, -0.75, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
    SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
    assert np.allclose(found.affine, read_header(FileSource(tmp_path / "a.nii.gz")).affine, atol=1e-5)

    whole = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(whole[:-40])
    with pytest.raises(ImageError, match="truncated or corrupt"):
        read_image(FileSource(tmp_path / f"b{suffix}"))


def test_2d_itk_has_rows_and_columns_as_a_picture_has(tmp_path: Path) -> None:
    array = voxels((4, 6), np.uint8)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.5, 2.0))  # x (columns), y (rows)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    found = read_image(FileSource(tmp_path / "a.mha"))
    assert (found.array[0] == array).all()
    assert found.spacing == (2.0, 0.5)


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (1, 4, 6), np.uint8),
        ("RGB", (3, 4, 6), np.uint8),
        ("I;16", (1, 4, 6), np.uint16),
        ("1", (1, 4, 6), np.uint8),
    ],
)
def test_pictures_have_rows_then_columns(tmp_path: Path, mode: str, shape: tuple[int, ...], dtype: type) -> None:
    array = voxels((4, 6) if mode != "RGB" else (4, 6, 3), np.uint8)
    picture = Pillow.fromarray(array.astype(np.uint16) * 100) if mode == "I;16" else Pillow.fromarray(array)
    (picture.convert("1") if mode == "1" else picture).save(tmp_path / "a.png")
    header, image = read_header(FileSource(tmp_path / "a.png")), read_image(FileSource(tmp_path / "a.png"))
    assert image.array.shape == shape == (header.channels, *header.shape)
    assert image.array.dtype == dtype == header.dtype
    assert (image.affine == np.eye(4)).all()
    if mode == "I;16":
        assert (image.array[0] == array.astype(np.uint16) * 100).all()
    if mode == "RGB":
        assert (image.array[1] == array[..., 1]).all()
    if mode == "1":
        assert set(np.unique(image.array)) <= {0, 1}


def test_a_palette_is_colour_in_images_and_class_value_in_masks(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    source = FileSource(tmp_path / "a.png")
    assert read_mask(source).array.tolist() == [[[0, 1], [2, 1]]]
    assert read_header(source, mask=True).channels == 1
    assert read_image(source).array[:, 0, 1].tolist() == [255, 0, 0]
    assert read_header(source).channels == 3


def test_alpha_is_dropped_where_it_says_nothing_and_refused_where_it_does(tmp_path: Path) -> None:
    array = voxels((4, 6, 4), np.uint8)
    array[..., 3] = 255
    Pillow.fromarray(array).save(tmp_path / "a.png")
    assert (read_image(FileSource(tmp_path / "a.png")).array == np.moveaxis(array[..., :3], -1, 0)).all()
    array[0, 0, 3] = 0
    Pillow.fromarray(array).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="transparent"):
        read_image(FileSource(tmp_path / "a.png"))


def test_pictures_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    grey = Pillow.fromarray(voxels((64, 64), np.uint8))
    grey.save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    (tmp_path / "flipped.png").write_bytes(flipped)
    (tmp_path / "text.png").write_text("a text")
    grey.save(tmp_path / "pages.tif", save_all=True, append_images=[grey.crop((0, 0, 9, 9))])
    grey.convert("CMYK").save(tmp_path / "cmyk.jpg")
    for name, fault in [
        ("cut.png", "truncated or corrupt"),
        ("flipped.png", "truncated or corrupt"),
        ("text.png", "not a picture"),
        ("pages.tif", "2 different shapes"),
        ("cmyk.jpg", "CMYK"),
        ("a.xyz", "unknown image format"),
    ]:
        with pytest.raises(ImageError, match=fault):
            read_image(FileSource(tmp_path / name))
    Pillow.fromarray(voxels((8, 8, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(ImageError, match="not a mask"):
        read_mask(FileSource(tmp_path / "colour.png"))
    grey.convert("RGB").save(tmp_path / "grey.png")
    assert (read_mask(FileSource(tmp_path / "grey.png")).array[0] == np.asarray(grey)).all()


def test_images_in_an_npz(tmp_path: Path) -> None:
    grey, colour = voxels((3, 4, 6), np.uint8), voxels((3, 4, 6, 3), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", grey=grey, colour=colour, volume=voxels((2, 4, 5, 6), np.uint8))
    image = read_image(ArraySource(tmp_path / "a.npz", "grey", 2))
    assert (image.array == grey[2:]).all()
    assert (read_image(ArraySource(tmp_path / "a.npz", "colour", 1)).array == np.moveaxis(colour[1], -1, 0)).all()
    header = read_header(ArraySource(tmp_path / "a.npz", "volume", 0))
    assert (header.shape, header.channels) == ((4, 5, 6), 1)
    image.array[:] = 0  # a copy: what others read stays
    assert read_image(ArraySource(tmp_path / "a.npz", "grey", 2)).array.any()

    np.savez(tmp_path / "b.npz", objects=np.array([{}, []], dtype=object), flat=np.zeros(5))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(whole[:-50])
    for name, key, index, fault in [
        ("a", "grey", 3, "number 3"),
        ("a", "gray", 0, "has no array"),
        ("b", "objects", 0, "cannot be read"),
        ("b", "flat", 0, "does not hold"),
        ("c", "grey", 0, "not an .npz"),
    ]:
        with pytest.raises(ImageError, match=fault):
            read_image(ArraySource(tmp_path / f"{name}.npz", key, index))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_masks_of_volumes_keep_grid_and_affine(tmp_path: Path, name: str) -> None:
    like = FileSource(tmp_path / name)
    if name.startswith("a.nii"):
        write_nifti(like.path, voxels((4, 5, 6)), sform=2, qform=1)
    else:
        image = SimpleITK.GetImageFromArray(voxels((6, 5, 4)))
        image.SetSpacing((0.5, 0.75, 3.0))
        image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
        SimpleITK.WriteImage(image, str(like.path))
    indices = (voxels((4, 5, 6)) > 100).astype(np.uint8)
    path = tmp_path / "masks" / name
    write_mask(path, indices, LABELS, like)
    found = read_mask(FileSource(path))
    assert found.array.dtype == np.uint8
    assert (found.array[0] == indices * np.uint8(255)).all()
    assert np.allclose(found.affine, read_header(like).affine)
    assert [entry.name for entry in path.parent.iterdir()] == [name]
    if name.startswith("a.nii"):
        header = nib.load(path).header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 1)
        assert np.allclose(header.get_qform(), nib.load(like.path).header.get_qform())


def test_masks_of_rescaled_4d_images_are_plain_volumes(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels((4, 5, 6, 2)), AFFINE)
    image.header.set_slope_inter(0.1, 7)
    nib.save(image, tmp_path / "a.nii.gz")
    like = FileSource(tmp_path / "a.nii.gz")
    write_mask(tmp_path / "m.nii.gz", np.ones((4, 5, 6), np.uint8), LABELS, like)
    found = nib.load(tmp_path / "m.nii.gz")
    assert found.shape == (4, 5, 6)
    assert (np.asanyarray(found.dataobj) == 255).all()
    assert np.allclose(found.affine, read_header(like).affine)


def test_masks_of_pictures_are_pictures(tmp_path: Path) -> None:
    Pillow.fromarray(voxels((4, 6), np.uint8)).save(tmp_path / "a.png")
    Pillow.fromarray(voxels((4, 6), np.uint8)).save(tmp_path / "b.jpg")
    indices = np.zeros((4, 6), np.uint8)
    indices[1, 4] = 1
    write_mask(tmp_path / "m.png", indices, LABELS, FileSource(tmp_path / "a.png"))
    assert np.asarray(Pillow.open(tmp_path / "m.png"))[1, 4] == 255
    write_mask(tmp_path / "m16.png", indices, Labels({1000: "lung"}), FileSource(tmp_path / "a.png"))
    assert read_mask(FileSource(tmp_path / "m16.png")).array[0, 1, 4] == 1000
    assert mask_name(FileSource(tmp_path / "b.jpg")) == "b.png"
    assert mask_name(FileSource(tmp_path / "a.nii.gz")) == "a.nii.gz"
    with pytest.raises(ImageError, match="JPEG"):
        write_mask(tmp_path / "m.jpg", indices, LABELS, FileSource(tmp_path / "b.jpg"))
    with pytest.raises(ImageError, match="int16"):
        write_mask(tmp_path / "n.png", indices, Labels({-1: "lung"}), FileSource(tmp_path / "a.png"))
    with pytest.raises(ValueError, match="shape"):
        write_mask(tmp_path / "n.png", indices.T, LABELS, FileSource(tmp_path / "a.png"))
    assert not list(tmp_path.glob(".*"))


def test_names() -> None:
    assert stem_of(Path("x/Case 1.v2.NII.GZ")) == "Case 1.v2"
    assert ArraySource(Path("x/a.npz"), "train_images", 3).name == "a.npz:train_images[3]"


def test_real_scans_agree_with_nibabel(real_data: Callable[[str], Path]) -> None:
    for path in sorted(real_data("Task04_Hippocampus").glob("imagesTr/*.nii.gz"))[:5]:
        image = read_image(FileSource(path))
        assert (image.array[0] == np.asanyarray(nib.load(path).dataobj)).all()
        assert np.array_equal(image.affine, nib.load(path).affine)
    scan = read_image(FileSource(real_data("cip_chest_ct_64") / "ct-64.nrrd"))
    assert scan.array.shape == (1, 64, 64, 79)
    assert scan.array.min() < -900  # HU of air
