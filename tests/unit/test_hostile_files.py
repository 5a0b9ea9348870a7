"""Files that would mislead in silence or fill the memory: lists, tables, headers, checkpoints."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.cli import main
from pipeline.data.case import FileSource
from pipeline.data.image_io import ImageError, read_header
from pipeline.data.image_io.image import require_plausible
from pipeline.data.readers import read_decathlon, read_medmnist, read_nnunet, read_table
from pipeline.data.readers.rows import read_rows
from pipeline.errors import UserError
from pipeline.prediction.weights import read_checkpoint


def pair(root: Path, number: int) -> dict[str, str]:
    """An image and its mask, as the entry of a list."""
    rng = np.random.default_rng(number)
    entry = {"image": f"imagesTr/p{number}.nii.gz", "label": f"labelsTr/p{number}.nii.gz"}
    mask = np.zeros((10, 9, 8), np.uint8)
    mask[2 + number % 3 : 7, 2 : 7 - number // 3, 2:6] = 1
    for key, array in (("image", rng.normal(50, 5, mask.shape) + 40 * mask), ("label", mask)):
        path = root / entry[key]
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(array.astype(np.float32 if key == "image" else np.uint8), np.eye(4)).to_filename(path)
    return entry


@pytest.fixture
def listing(tmp_path: Path) -> dict[str, object]:
    return {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ"},
        "training": [pair(tmp_path, number) for number in range(6)],
    }


def write(root: Path, text: str) -> Path:
    (root / "dataset.json").write_text(text)
    return root


def test_a_key_that_stands_twice_is_no_choice_between_two_values(tmp_path: Path, listing: dict[str, object]) -> None:
    twice = json.dumps(listing).replace('"1": "organ"', '"1": "organ", "1": "lesion"')
    with pytest.raises(UserError, match=r"dataset\.json: no valid JSON \(the key '1' stands twice"):
        read_decathlon(root=write(tmp_path, twice))
    with pytest.raises(UserError, match="the key '1' stands twice"):
        read_nnunet(root=tmp_path)


def test_labels_as_nnunet_writes_them(tmp_path: Path, listing: dict[str, object]) -> None:
    listing["labels"] = {"background": 0, "organ": 1}
    labels = read_decathlon(root=write(tmp_path, json.dumps(listing))).labels
    assert labels is not None
    assert labels.values == {0: "background", 1: "organ"}


def test_a_case_is_for_training_or_for_the_test(tmp_path: Path, listing: dict[str, object]) -> None:
    listing["test"] = ["./imagesTr/p2.nii.gz", "./imagesTs/p9.nii.gz"]
    with pytest.raises(UserError, match=r"imagesTr/p2\.nii\.gz is listed for training and for the test"):
        read_decathlon(root=write(tmp_path, json.dumps(listing)))
    listing["test"] = [{"image": "./imagesTs/p9.nii.gz"}]
    assert len(read_decathlon(root=write(tmp_path, json.dumps(listing))).cases) == 6


@pytest.mark.parametrize("name", ["imagesTr/\ud800.nii.gz", "imagesTr/p1\0.nii.gz"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path, listing: dict[str, object]) -> None:
    listing["training"][2]["image"] = name  # type: ignore[index]
    with pytest.raises(UserError, match="is no file name"):
        read_decathlon(root=write(tmp_path, json.dumps(listing)))


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.7z").write_bytes(b"7z")
    with pytest.raises(UserError, match="neither a folder nor an archive"):
        read_decathlon(root=tmp_path / "data.7z")


def folds_of(root: Path, listing: dict[str, object], folds: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the check prints about a table with these folds."""
    rows = [
        f"p{number},{entry['image']},{entry['label']},{fold}"
        for number, (entry, fold) in enumerate(zip(listing["training"], folds, strict=True))  # type: ignore[call-overload]
    ]
    (root / "cases.csv").write_text("case_id,image,label,fold\n" + "\n".join(rows) + "\n,,,\n")
    columns = ["data.columns.patient_id=null", "data.columns.fold=fold", "data.labels={0: background, 1: organ}"]
    overrides = ["data=table", f"data.root={root}", f"cache={root / 'cache'}", f"output={root / 'out'}", *columns]
    status = main(["check", *overrides, "check.contact_sheet_cases=0"])
    return f"{status} " + " ".join("".join(capsys.readouterr()).split())


def test_the_check_tells_what_is_wrong_with_given_folds(
    tmp_path: Path, listing: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folds_of(tmp_path, listing, list("012012"), capsys).startswith("0 ")
    assert folds_of(tmp_path, listing, ["0.0", "1.0", "2.0"] * 2, capsys).startswith("0 ")
    gap = folds_of(tmp_path, listing, list("013013"), capsys)
    assert gap.startswith("2 ")
    assert "gives folds 0, 1, 3" in gap
    lacking = folds_of(tmp_path, listing, ["0", "1", "", "0", "1", "1"], capsys)
    assert lacking.startswith("2 ")
    assert "1 cases have no fold, such as p2" in lacking


def test_rows_of_separators_alone_are_no_cases(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n,\n\n3,4\n,\n")
    assert read_rows(tmp_path / "t.csv")[1] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_parquet_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = 4_000_000
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["case"]))
    pq.write_table(pa.table({"a": one, "b": one, "c": one}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="too large: 4,000,000 rows of 3 columns"):
        read_rows(path)
    pq.write_table(pa.table({"a": ["x" * 10_000_000] * 30}), path)
    with pytest.raises(UserError, match="too large: 30 rows of 1 columns, 300,000,000 bytes"):
        read_rows(path)
    pq.write_table(pa.table({"a": ["x", None, "x"], "n": [1, 2, 3], "l": [["p", "q"], [], ["r"]]}), path)
    assert read_rows(path)[1][0] == {"a": "x", "n": "1", "l": "p;q"}
    with pytest.raises(UserError, match="is no file"):
        (tmp_path / "folder.parquet").mkdir()
        read_rows(tmp_path / "folder.parquet")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 1, np.inf, 0]), "no whole numbers"),
        (np.array([0, 1, np.nan, 0]), "no whole numbers"),
    ],
)
def test_labels_of_medmnist_that_are_no_numbers(labels: np.ndarray, said: str, tmp_path: Path) -> None:
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=labels)
    with pytest.raises(UserError, match=said):
        read_medmnist(root=tmp_path)
    np.savez(tmp_path / "m.npz", train_images=images[:0], train_labels=labels[:0])
    with pytest.raises(UserError, match="is empty"):
        read_medmnist(root=tmp_path)


def test_an_encrypted_npz(tmp_path: Path) -> None:
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=np.arange(4) % 2)
    content = bytearray((tmp_path / "m.npz").read_bytes())
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = content.find(mark)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(mark, at + 1)
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(ImageError, match="encrypted"):
        read_medmnist(root=tmp_path)


def test_a_volume_that_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    head = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).header
    head.set_data_shape((2000, 2000, 400))
    head["vox_offset"] = 352
    path.write_bytes(head.binaryblock + b"\0" * 4)
    os.truncate(path, 352 + 2 * 2000 * 2000 * 400)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("the file system keeps no holes")
    with pytest.raises(ImageError, match="never written"):
        read_header(FileSource(path))


def test_gigabytes_from_next_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"x")
    with pytest.raises(ImageError, match="too large: it unpacks to 2,000,000,000 bytes, 1000 times"):
        require_plausible(path, 2_000_000_000, 2_000_000, compressed=True)
    require_plausible(path, 2_000_000_000, 2_000_000, compressed=True, streamed=True)  # a mask of a large scan
    require_plausible(path, 700_000_000, 700_000, compressed=True)
    require_plausible(path, 2_000_000_000, 20_000_000, compressed=True)
    with pytest.raises(ImageError, match="ratio"):
        require_plausible(path, 20_000_000_000, 20_000_000, compressed=True, streamed=True)


def test_headers_that_say_two_things(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.diag([1, 1, 2.5, 1]))
    image.set_qform(None, 0)
    content = bytearray(image.to_bytes())
    content[88:92] = np.float32(9).tobytes()  # pixdim of the third axis
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    (doubt,) = read_header(FileSource(tmp_path / "a.nii.gz")).doubts
    assert doubt == "two voxel sizes: [1.0, 1.0, 2.5] by the sform, [1.0, 1.0, 9.0] by pixdim; the sform is used"
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([-1, 100], np.float32).tobytes()  # scl_slope, scl_inter
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(content)))
    (doubt,) = read_header(FileSource(tmp_path / "b.nii.gz")).doubts
    assert doubt == "intensity slope scl_slope is -1: bright and dark are exchanged"


def test_a_checkpoint_that_unpacks_to_more_than_its_size(tmp_path: Path) -> None:
    torch.save({"state_dict": {"network.a": torch.zeros(4)}}, tmp_path / "good.ckpt")
    assert read_checkpoint(tmp_path / "good.ckpt")["state_dict"]["network.a"].shape == (4,)
    with (
        zipfile.ZipFile(tmp_path / "good.ckpt") as good,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in good.namelist():
            bomb.writestr(name, good.read(name) if not name.endswith("data/0") else bytes(100_000_000))
    with pytest.raises(UserError, match="too large for its size"):
        read_checkpoint(tmp_path / "bomb.ckpt")
    (tmp_path / "good.ckpt.sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="sha256"):
        read_checkpoint(tmp_path / "good.ckpt")


def test_names_that_differ_in_what_has_no_width(tmp_path: Path, listing: dict[str, object]) -> None:
    from pipeline.data.integrity import check_dataset

    rows = ["case_id,patient_id,image,label"]
    for number, entry in enumerate(listing["training"]):  # type: ignore[arg-type, var-annotated]
        patient = {0: "P7", 1: "P\u200b7"}.get(number, f"Q{number}")
        rows.append(f"p{number},{patient},{entry['image']},{entry['label']}")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    labels = {0: "background", 1: "organ"}
    dataset = read_table(root=tmp_path, task_kind="segmentation", labels=labels)
    assert [fault.rule for fault in check_dataset(dataset).faults] == ["look_alike"]
