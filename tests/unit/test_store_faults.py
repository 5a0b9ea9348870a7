"""What may happen to a store: kills at any moment, other processes, damage, full and read-only disks, eviction."""

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.store import Store, StoreSettings
from pipeline.data.store.locks import locked, take
from pipeline.data.store.users import evict
from pipeline.data.store.writing import StoreError
from tests.unit.stored import assert_same, contents, preprocessing, store_of, write_cases

CONTEXT = get_context("forkserver")  # whose processes start in milliseconds
CONTEXT.set_forkserver_preload(["pipeline.data.store"])
KILLS = 30


def test_kills_at_any_moment_leave_only_whole_entries(tmp_path: Path) -> None:
    """Rounds of kills, each on what the one before left, until the store is complete; then from the start again."""
    cases = write_cases(tmp_path / "data", 12, (40, 40, 24))
    undisturbed = store_of(tmp_path / "undisturbed", cases)
    _run(undisturbed, cases).join()  # the first also starts the server of processes
    shutil.rmtree(undisturbed.folder)
    begun = time.monotonic()
    _run(undisturbed, cases).join()
    span = time.monotonic() - begun
    wanted = contents(undisturbed.folder)
    assert len(wanted) == 12 * 4
    rng = np.random.default_rng(11)
    store = store_of(tmp_path / "killed", cases)
    unfinished = partly = 0
    for _ in range(KILLS):
        process = _run(store, cases)
        time.sleep(float(rng.uniform(0, span)))
        process.kill()
        process.join()
        unfinished += any(store.places.partial.iterdir()) if store.places.partial.is_dir() else 0
        entries = contents(store.folder)
        assert entries.items() <= wanted.items()  # whatever stands in its place is right, to the bit
        folders = {name.rpartition("/")[0] for name in entries}
        assert len(entries) == 4 * len(folders)  # and whole
        partly += 0 < len(folders) < 12
        if len(folders) == 12 or rng.random() < 0.3:
            _run(store, cases).join()
            assert contents(store.folder) == wanted
            shutil.rmtree(store.folder)
    assert partly >= 3 and unfinished >= 1  # the kills did hit the work
    process = _run(store, cases)
    process.join()
    assert process.exitcode == 0
    assert contents(store.folder) == wanted
    assert not any(store.places.partial.iterdir()) and not any(store.places.locks.iterdir())
    assert len(list(store.places.users.iterdir())) <= 1  # no sign of the dead
    for case in cases:
        assert_same(store[case], preprocessing()(case))


def _run(store: Store, cases: list):  # type: ignore[no-untyped-def]
    process = CONTEXT.Process(target=store.prepare, args=(cases,), kwargs={"workers": 2})
    process.start()
    return process


def test_processes_that_start_at_once_share_the_work(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 10, (40, 40, 24))
    store = store_of(tmp_path / "store", cases)
    with ProcessPoolExecutor(3, mp_context=CONTEXT) as pool:
        list(pool.map(time.sleep, [0.2] * 3))
        written = [future.result() for future in [pool.submit(store.prepare, cases, workers=2) for _ in range(3)]]
    assert sum(written) == 10
    assert all((store.places.entry(store.key(case)) / "entry.json").is_file() for case in cases)


def test_an_entry_that_another_writes_is_waited_for(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 3)
    store = store_of(tmp_path / "store", cases)
    store.places.locks.mkdir(parents=True)
    lock = take(store.places.lock(store.key(cases[1])), wait=True)
    assert lock is not None
    process = _run(store, cases)
    others = [store.places.entry(store.key(cases[n])) for n in (0, 2)]
    deadline = time.monotonic() + 60
    while not all(entry.is_dir() for entry in others) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.is_alive() and not store.places.entry(store.key(cases[1])).exists()
    os.close(lock)  # as when its holder dies
    process.join()
    assert process.exitcode == 0 and store.prepare(cases) == 0


def test_a_lock_has_one_holder_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as mine:
        assert mine
        with locked(path, wait=False) as other:
            assert not other
    assert not path.exists()
    with locked(path, wait=False) as mine:
        assert mine


def _cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def _flip_start(path: Path) -> None:
    _flip(path, 9)


def _flip_end(path: Path) -> None:
    _flip(path, path.stat().st_size - 3)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("kind", ["npy", "blosc2"])
@pytest.mark.parametrize("name", ["image", "label", "centres", "entry.json"])
@pytest.mark.parametrize("damage", [_cut_short, _flip_start, _flip_end, _empty, Path.unlink])
def test_a_damaged_entry_is_written_again(tmp_path: Path, kind: str, name: str, damage) -> None:  # type: ignore[no-untyped-def]
    cases = write_cases(tmp_path / "data", 1)
    settings = StoreSettings(format=kind)  # type: ignore[arg-type]
    store_of(tmp_path / "store", cases, settings).prepare(cases)
    before = contents(tmp_path / "store")
    (path,) = (tmp_path / "store").glob(f"??/*/{name}*")
    damage(path)
    store = store_of(tmp_path / "store", cases, settings)
    assert_same(store[cases[0]], preprocessing()(cases[0]))
    assert contents(tmp_path / "store") == before


def test_an_entry_that_vanishes_is_written_again(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 1)
    store = store_of(tmp_path / "store", cases)
    store.prepare(cases)
    shutil.rmtree(store.folder)
    assert_same(store[cases[0]], preprocessing()(cases[0]))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 768 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_an_error_that_leaves_the_store_valid(tmp_path: Path, small_disk: Path, workers: int) -> None:
    cases = write_cases(tmp_path / "data", 12, (30, 30, 20))
    store = store_of(small_disk / "store", cases)
    with pytest.raises(StoreError, match="disk is full") as caught:
        store.prepare(cases, workers=workers)
    assert "cache=FOLDER" in str(caught.value)
    assert not any(store.places.partial.iterdir())
    whole = {path.name for path in store.folder.glob("??/*")}
    assert 0 < len(whole) < 12
    _remount(small_disk, "size=8m")
    assert store.prepare(cases) == 12 - len(whole)
    for case in cases:
        assert_same(store[case], preprocessing()(case))


def test_a_read_only_store_serves_what_it_has(tmp_path: Path, small_disk: Path) -> None:
    cases = write_cases(tmp_path / "data", 3)
    store = store_of(small_disk / "store", cases)
    store.prepare(cases[:2])
    store.close()
    _remount(small_disk, "ro")
    reader = store_of(small_disk / "store", cases)
    assert reader.prepare(cases[:2]) == 0
    assert_same(reader[cases[0]], preprocessing()(cases[0]))
    with pytest.raises(StoreError, match=r"cannot be written here.*Read-only"):
        reader.prepare(cases)
    with pytest.raises(StoreError, match="Read-only"):
        store_of(small_disk / "other", cases).prepare(cases)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 1)
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match=str(tmp_path / "store")):
        store_of(tmp_path / "store", cases).prepare(cases)


def _size(store: Store) -> int:
    return sum(path.stat().st_size for path in store.folder.glob("??/*/*"))


def _there(store: Store, cases: list) -> list[int]:  # type: ignore[type-arg]
    return [n for n, case in enumerate(cases) if store.places.entry(store.key(case)).is_dir()]


def test_the_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 6)
    store = store_of(tmp_path / "store", cases)
    store.prepare(cases)
    each = _size(store) / 6
    for age, number in enumerate([3, 0, 5, 1, 4, 2]):  # from the newest to the oldest
        os.utime(store.places.entry(store.key(cases[number])), (1e9 - age, 1e9 - age))
    store.close()
    user = store_of(tmp_path / "store", cases)
    assert user[cases[2]].image.shape == (1, 14, 12, 10)  # opening the oldest makes it the newest
    assert evict(store.places, 3.2 * each / 1e9, set()) == 3
    assert _there(store, cases) == [0, 2, 3]


def test_entries_of_living_processes_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = write_cases(tmp_path / "data", 6)
    other, dead = store_of(tmp_path / "store", cases), store_of(tmp_path / "store", cases)
    other.prepare(cases[:2])
    process = CONTEXT.Process(target=_prepare_and_wait, args=(dead, cases[2:4], tmp_path / "ready"))
    process.start()
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    mine = store_of(tmp_path / "store", cases, StoreSettings(max_gb=1e-9))
    with caplog.at_level(logging.WARNING):
        mine.prepare(cases[4:])
    assert _there(mine, cases) == [0, 1, 2, 3, 4, 5]
    assert "more than store.max_gb" in caplog.text
    process.kill()
    process.join()
    mine.prepare(cases[4:])
    assert _there(mine, cases) == [0, 1, 4, 5]
    other.close()
    mine.prepare(cases[4:])
    assert _there(mine, cases) == [4, 5]
    assert len(list(mine.places.users.iterdir())) == 1  # the dead one's too is gone


def _prepare_and_wait(store: Store, cases: list, ready: Path) -> None:  # type: ignore[type-arg]
    store.prepare(cases)
    ready.touch()
    time.sleep(600)


def test_a_store_below_its_limit_keeps_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = write_cases(tmp_path / "data", 3)
    store_of(tmp_path / "store", cases).prepare(cases[:2])
    store = store_of(tmp_path / "store", cases, StoreSettings(max_gb=1))
    store.prepare(cases[2:])
    assert _there(store, cases) == [0, 1, 2] and not caplog.text
