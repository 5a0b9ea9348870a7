"""Archives: what is unpacked, what is refused, and that nothing is ever left half done."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow

from pipeline.data.archive import LIMITS, Limits, extract, is_archive, stem_of_archive
from pipeline.data.readers import open_dataset
from pipeline.data.readers.decathlon import fetch
from pipeline.data.unpacked import unpacked
from pipeline.errors import UserError

Members = list[tuple[str, bytes]]
GOOD: Members = [("set/dataset.json", b"{}"), ("set/imagesTr/a.nii", b"image" * 100), ("set/labelsTr/a.nii", b"label")]


def zipped(path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name) if name.endswith("/") else name, content)
    return path


def tarred(path: Path, members: list[tuple[str, bytes | dict[str, Any]]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for key, value in content.items():
                    setattr(info, key, value)
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def test_what_is_packed_is_unpacked(tmp_path: Path, name: str) -> None:
    assert is_archive(tmp_path / name)
    assert stem_of_archive(tmp_path / name) == "a"
    path = tmp_path / name
    members: Members = [*GOOD, ("__MACOSX/._a", b"x")]
    zipped(path, members) if name == "a.zip" else tarred(path, members, "w:gz" if "gz" in name else "w")
    extract(path, tmp_path / "new" / "folder")
    expected = {name.removeprefix("set/"): content for name, content in GOOD}
    assert written(tmp_path / "new" / "folder") == expected  # the one folder inside becomes the target
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["folder"]
    with pytest.raises(UserError, match="exists already"):
        extract(path, tmp_path / "new" / "folder")


def test_folders_and_files_at_the_top_stay_where_they_are(tmp_path: Path) -> None:
    members: Members = [("./", b""), ("./a/", b""), ("./a/x", b"1"), ("b/y", b"2"), ("c", b"3")]
    extract(zipped(tmp_path / "a.zip", members), tmp_path / "zip")
    assert written(tmp_path / "zip") == {"a/x": b"1", "b/y": b"2", "c": b"3"}
    folders: list[tuple[str, Any]] = [
        ("./", {"type": tarfile.DIRTYPE}),
        ("a", {"type": tarfile.DIRTYPE}),
        ("a/x", b"1"),
    ]
    extract(tarred(tmp_path / "a.tar", [*folders, ("c", b"3")]), tmp_path / "tar")
    assert written(tmp_path / "tar") == {"a/x": b"1", "c": b"3"}


UNSAFE: list[tuple[Members, str]] = [
    ([("../x", b"")], "outside"),
    ([("a/../../x", b"")], "outside"),
    ([("/x", b"")], "absolute"),
    ([("C:/x", b"")], "absolute"),
    ([("a\\..\\..\\x", b"")], "not allowed"),
    ([("a\nb", b"")], "not allowed"),
    ([("a", b""), ("a", b"")], "stands twice"),
    ([("a", b""), ("./a", b"")], "stands twice"),
    ([("a/b", b""), ("A/c", b"")], "differ only in case"),
    ([("stra\u00dfe", b""), ("STRASSE", b"")], "differ only in case"),
    ([("e\u0301", b""), ("\u00e9", b"")], "differ only in case or in form"),
    ([("a", b""), ("a/b", b"")], "one is a folder"),
    ([("a/b", b""), ("a", b"")], "one is a folder"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(("members", "fault"), UNSAFE)
def test_unsafe_members_are_refused_and_nothing_is_left(
    tmp_path: Path, kind: str, members: Members, fault: str
) -> None:
    archive = tmp_path / f"a.{kind}"
    first: Members = [("good", b"x")]
    zipped(archive, first + members) if kind == "zip" else tarred(archive, first + members)  # type: ignore[operator]
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=fault) as caught:
        extract(archive, tmp_path / "in" / "target")
    assert str(archive) in caught.value.cause
    assert repr(members[-1][0]) in caught.value.cause
    assert list((tmp_path / "in").iterdir()) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"in", archive.name}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc"}, r"is a link \(to /etc\)"),
        ({"type": tarfile.SYMTYPE, "linkname": "good"}, "is a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "good"}, "is a link"),
        ({"type": tarfile.CHRTYPE}, "device"),
        ({"type": tarfile.FIFOTYPE}, "pipe"),
        ({"type": b"9"}, "no plain file"),
    ],
)
def test_links_and_devices_of_tar_are_refused(tmp_path: Path, content: dict[str, Any], fault: str) -> None:
    archive = tarred(tmp_path / "a.tar", [("good", b"x"), ("bad", content)])
    with pytest.raises(UserError, match=fault):
        extract(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_links_and_codes_of_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="'link' is a link or a device"):
        extract(tmp_path / "a.zip", tmp_path / "target")
    with pytest.raises(UserError, match="compression method 14"):
        extract(zipped(tmp_path / "b.zip", GOOD, zipfile.ZIP_LZMA), tmp_path / "target")
    whole = bytearray(zipped(tmp_path / "c.zip", [("a", b"x")]).read_bytes())
    at = whole.rfind(b"PK\1\2")
    struct.pack_into("<H", whole, at + 8, 1)
    (tmp_path / "c.zip").write_bytes(whole)
    with pytest.raises(UserError, match="is encrypted"):
        extract(tmp_path / "c.zip", tmp_path / "target")


def test_limits(tmp_path: Path) -> None:
    many: Members = [(f"{number}.txt", b"12345678") for number in range(20)]
    archives = [zipped(tmp_path / "a.zip", many), tarred(tmp_path / "a.tar", many)]  # type: ignore[arg-type]
    for archive in archives:
        for limits, fault in [(Limits(entries=19), "more than 19 entries"), (Limits(size=159), "more than 159 bytes")]:
            with pytest.raises(UserError, match=f"too large: .*{fault}") as caught:
                extract(archive, tmp_path / "target", limits)
            assert "unpack it yourself" in caught.value.remedies[0]
            assert not (tmp_path / "target").exists()
    bomb: Members = [("zeros.nii", bytes(80 << 20))]
    for archive in (
        zipped(tmp_path / "b.zip", bomb),
        tarred(tmp_path / "b.tar.gz", bomb, "w:gz"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match=r"too large.*ratio"):
            extract(archive, tmp_path / "target")
        extract(archive, tmp_path / archive.name[:3], Limits(ratio=2000))
        assert (tmp_path / archive.name[:3] / "zeros.nii").stat().st_size == 80 << 20
    assert Limits() == LIMITS


def test_names_of_gigabytes_and_lists_of_members_without_end(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 40 << 20
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header.tobuf())
        file.write(bytes(40 << 20))
    with pytest.raises(UserError, match="name takes"):
        extract(tmp_path / "a.tar.gz", tmp_path / "target")
    many = b"".join(tarfile.TarInfo("same").tobuf() for _ in range(3))
    nested = tarfile.TarInfo("x")
    nested.type = tarfile.XHDTYPE
    (tmp_path / "b.tar").write_bytes(nested.tobuf() * 5000 + many)
    with pytest.raises(UserError, match="damaged"):
        extract(tmp_path / "b.tar", tmp_path / "target")
    zipped(tmp_path / "c.zip", [(f"{'n' * 150}{number}", b"") for number in range(50)])
    with pytest.raises(UserError, match="list of members"):
        extract(tmp_path / "c.zip", tmp_path / "target", Limits(entries=50))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_damaged_archives_are_named(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    members: Members = [("a/x", noise), ("a/y", noise[::-1]), ("a/z", b"")]
    path = tmp_path / name
    zipped(path, members) if name == "a.zip" else tarred(path, members, "w:gz" if "gz" in name else "w")  # type: ignore
    whole = path.read_bytes()
    for part in (0, 10, 600, len(whole) // 2, 60_000, 70_000):
        path.write_bytes(whole[:part])
        with pytest.raises(UserError, match=r"damaged|holds nothing") as caught:
            extract(path, tmp_path / "target")
        assert str(path) in caught.value.cause
    if name != "a.tar":  # a tar has no checksum of its content
        flipped = bytearray(whole)
        flipped[len(whole) // 3] ^= 0xFF
        path.write_bytes(flipped)
        with pytest.raises(UserError, match="damaged"):
            extract(path, tmp_path / "target")
    assert {entry.name for entry in tmp_path.iterdir()} == {name}
    with pytest.raises(UserError, match="no such archive"):
        extract(tmp_path / "none.zip", tmp_path / "target")


def test_random_damage_never_leaves_a_folder_or_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for name, whole in (
        ("a.zip", zipped(tmp_path / "a.zip", GOOD).read_bytes()),
        ("a.tar", tarred(tmp_path / "a.tar", GOOD).read_bytes()),  # type: ignore[arg-type]
    ):
        for _ in range(150):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 3).tolist():
                data[at] = int(rng.integers(256))
            (tmp_path / name).write_bytes(data)
            try:
                extract(tmp_path / name, tmp_path / "in" / "target")
                (tmp_path / "in" / "target").rename(tmp_path / f"out_{rng.integers(1 << 60)}")
            except UserError:
                pass
            assert not any((tmp_path / "in").iterdir())


def decathlon_folder(root: Path) -> Path:
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
        nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_filename(root / folder / "a.nii.gz")
    listing = {
        "labels": {"0": "background", "1": "lung"},
        "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}],
    }
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


def packed(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def test_a_data_set_may_be_an_archive(tmp_path: Path) -> None:
    archive = packed(decathlon_folder(tmp_path / "Task06_Lung"), tmp_path / "lung.tar.gz")
    settings = {"format": "decathlon", "root": str(archive)}
    dataset = open_dataset(settings, task_kind="segmentation", cache=tmp_path / "cache")
    assert dataset.root.name == "lung"
    assert dataset.root.is_relative_to(tmp_path / "cache" / "archives")
    assert (dataset.root / "imagesTr" / "a.nii.gz").is_file()
    before = {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*")}
    again = open_dataset(settings, task_kind="segmentation", cache=tmp_path / "cache")
    assert again == dataset
    assert {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*")} == before
    (tmp_path / "Task06_Lung" / "more").write_text("other content")
    changed = unpacked(packed(tmp_path / "Task06_Lung", archive), tmp_path / "cache")
    assert changed != dataset.root
    assert (changed / "more").is_file()

    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        Pillow.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "classes.zip", "w") as file:
        for name in ("a/1.png", "b/1.png"):
            file.write(tmp_path / name, name)
    settings = {"format": "class_folders", "root": str(tmp_path / "classes.zip")}
    folders = open_dataset(settings, task_kind="classification", cache=tmp_path / "cache")
    assert folders.classes == ("a", "b")


def test_many_who_ask_at_once_unpack_once(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", [(f"set/{number}", bytes(1000)) for number in range(200)])
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: unpacked(archive, tmp_path / "cache"), range(8)))
    (folder,) = found
    assert len(list(folder.iterdir())) == 200
    left = folder.parent / ".a.0123.partial"
    left.mkdir()
    folder.rename(folder.with_name("gone"))
    assert unpacked(archive, tmp_path / "cache") == folder  # after a process that was killed
    assert not left.exists()


def test_a_downloaded_task_is_unpacked_beside_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.apps.datasets import DecathlonDataset

    archive = packed(decathlon_folder(tmp_path / "Task06_Lung"), tmp_path / "source.tar.gz")
    with gzip.open(archive) as content:
        (tmp_path / "Task06_Lung.tar").write_bytes(content.read())
    digest = hashlib.md5((tmp_path / "Task06_Lung.tar").read_bytes()).hexdigest()
    for path in (tmp_path / "target", tmp_path / "other"):
        path.mkdir()
    address = (tmp_path / "Task06_Lung.tar").as_uri()
    monkeypatch.setitem(DecathlonDataset.resource, "Task06_Lung", address)
    monkeypatch.setitem(DecathlonDataset.md5, "Task06_Lung", digest)
    fetch("Task06_Lung", tmp_path / "target")
    assert sorted(entry.name for entry in (tmp_path / "target").iterdir()) == ["Task06_Lung", "Task06_Lung.tar"]
    assert (tmp_path / "target/Task06_Lung/dataset.json").is_file()
    monkeypatch.setitem(DecathlonDataset.md5, "Task06_Lung", "0" * 32)
    with pytest.raises(UserError, match="download of Task06_Lung failed"):
        fetch("Task06_Lung", tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []
