"""Entries of the store: what they hold, what they depend on, what is open, what fails."""

import pickle
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from pipeline.data.case import ArraySource, Case, Labels
from pipeline.data.loading import Batch, TrainingPatches, training_loader
from pipeline.data.order import CaseOrder, Draw, EpochBatches
from pipeline.data.patches import PatchSampling, cut
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.store import Store, StoreSettings, identity
from pipeline.data.store.arrays import OpenArrays, StoredArray
from pipeline.data.store.formats import as_stored, narrowest
from pipeline.data.store.parallel import in_processes
from pipeline.errors import UserError, UserErrors
from tests.unit.stored import LABELS, assert_same, contents, hashes, preprocessing, store_of, write_cases

EVERY = [StoreSettings(format=kind, dtype=dtype) for kind in ("npy", "blosc2") for dtype in ("float32", "auto")]


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_an_entry_gives_back_what_was_prepared(tmp_path: Path, settings: StoreSettings) -> None:
    cases = write_cases(tmp_path / "data", 2)
    store = store_of(tmp_path / "store", cases, settings)
    assert store.prepare(cases, workers=2) == 2
    assert store.prepare(cases, workers=2) == 0
    again = store_of(tmp_path / "store", cases, settings)
    for case in cases:
        assert_same(again[case], preprocessing()(case))


@pytest.mark.parametrize(("shape", "dims"), [((2, 40, 37, 21), 3), ((3, 150, 90), 2), ((1, 7, 5, 3), 3)])
def test_patches_of_every_format_are_the_same_to_the_bit(tmp_path: Path, shape: tuple[int, ...], dims: int) -> None:
    """Also of arrays that are stored in a narrower type, and of patches that reach beyond the image."""
    rng = np.random.default_rng(0)
    images = {
        "float": rng.standard_normal(shape).astype(np.float32),
        "whole": rng.integers(-1000, 3000, shape).astype(np.float32),
        "half": rng.integers(0, 64, shape).astype(np.float32) / 8,
    }
    stored = {"float": np.float32, "whole": np.int16, "half": np.float16}
    prepared = preprocessing()(write_cases(tmp_path / "data", 1)[0])
    from pipeline.data.store.entry import read_entry, write_entry

    for name, image in images.items():
        entries = []
        for number, settings in enumerate(EVERY):
            write_entry(tmp_path / f"{name}{number}", replace(prepared, image=image, label=None, centres={}), settings)
            entries.append(read_entry(tmp_path / f"{name}{number}", OpenArrays()).image)
            assert isinstance(entries[-1], StoredArray)
            assert entries[-1].stored == (stored[name] if settings.dtype == "auto" else np.float32)
            assert np.array(entries[-1]).tobytes() == image.tobytes()
        for draw in range(20):
            size = tuple(int(n) for n in rng.integers(1, 48, dims))
            start = [int(rng.integers(-3, max(1, e - n + 3))) for e, n in zip(shape[1:], size, strict=True)]
            expected = cut(image, start, size)
            assert all(cut(entry, start, size).tobytes() == expected.tobytes() for entry in entries), draw


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255, 3], np.uint8),
        ([-1, 300], np.int16),
        ([0, 60000], np.uint16),
        ([0.5, 1024], np.float16),
        ([0.1, 1], np.float32),
        ([70000, 0], np.float32),
        ([-0.0, 1], np.float16),  # whole numbers have no negative zero
        ([np.nan, 1], np.float16),
        ([np.inf, 1], np.float16),
    ],
)
def test_the_narrowest_type_that_holds_every_value(values: list[float], kind: type) -> None:
    array = np.array(values * 700, np.float32).reshape(1, -1)
    found = narrowest(array)
    assert found.dtype == kind
    assert found.astype(np.float32).tobytes() == array.tobytes()


def test_float16_rounds_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 1)
    store = store_of(tmp_path / "store", cases, StoreSettings(dtype="float16"))
    image = np.asarray(store[cases[0]].image)
    exact = np.asarray(preprocessing()(cases[0]).image)
    assert image.dtype == np.float32 and np.array_equal(image, exact.astype(np.float16))
    assert not np.array_equal(image, exact)
    with pytest.raises(ValueError, match="70000"):
        as_stored(np.full((1, 4), 70000, np.float32), "float16")
    assert store.key(cases[0]) != store_of(tmp_path / "store", cases).key(cases[0])


class Filling(Preprocessing):
    """Preprocessing that has one more choice."""

    voxels = "fill"

    def identity(self) -> dict:
        return super().identity() | {"voxels": self.voxels}


def test_whatever_shapes_an_entry_changes_its_key(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 2)
    case, known = cases[0], hashes(cases)
    transforms = preprocessing().transforms

    def key(how: Preprocessing | None = None, recipe: str = "recipe", which: Case = case, **settings: str) -> str:
        store = Store(tmp_path / "s", how or preprocessing(), recipe, known, StoreSettings(**settings))  # type: ignore[arg-type]
        return store.key(which)

    filling, interpolating = Filling(transforms, LABELS), Filling(transforms, LABELS)
    interpolating.voxels = "interpolate"
    altered = {**known, case.case_id: {**known[case.case_id], "image_00.nii": "0" * 64}}
    one, two = known["case_00"]["image_00.nii"], known["case_01"]["image_01.nii"]
    known["both"] = {"image_00.nii": one, "image_01.nii": two}
    images = {"ct": cases[0].images["ct"], "mr": cases[1].images["ct"]}
    keys = [
        key(),
        key(recipe="another"),
        key(Preprocessing(transforms, Labels({0: "background", 1: "organ", 2: "organ"}))),
        key(Preprocessing(transforms, Labels(LABELS.values, ignore=9))),
        key(Preprocessing(transforms, LABELS, centres=7)),
        key(filling),
        key(interpolating),
        key(Preprocessing(transforms, LABELS, missing_voxels="fill")),
        key(Preprocessing(transforms, LABELS, missing_voxels="interpolate")),
        key(Preprocessing(transforms, LABELS, modalities=("ct", "mr"))),
        key(format="blosc2"),
        key(which=cases[1]),
        key(which=replace(case, label=None)),
        key(which=replace(case, case_id="both", images=images, label=None)),
        key(which=replace(case, case_id="both", images=dict(reversed(images.items())), label=None)),
        Store(tmp_path / "s", preprocessing(), "recipe", altered).key(case),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    regions = Labels(LABELS.values, regions={"all": (1, 2), "tumour": (2,)})
    assert key(Preprocessing(transforms, regions)) == keys[0]  # they are made of the stored classes later


def test_another_library_version_or_another_source_changes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = write_cases(tmp_path / "data", 1)
    package, module = tmp_path / "made_up_library-1.0.dist-info", tmp_path / "made_up_transforms.py"
    package.mkdir()
    module.write_text("def double(data):\n    return {**data, 'image': data['image'] * 2}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(identity, "LIBRARIES", (*identity.LIBRARIES, "made_up_library"))
    import made_up_transforms

    def key(version: str) -> str:
        (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-up-library\nVersion: {version}\n")
        identity._versions.cache_clear()
        how = Preprocessing(Compose([made_up_transforms.double]), LABELS)
        return store_of(tmp_path / "s", cases, how=how).key(cases[0])

    first, second = key("1.0"), key("1.1")
    assert first != second and first == key("1.0")
    module.write_text("def double(data):\n    return {**data, 'image': data['image'] * 3}\n")
    assert key("1.0") != first
    identity._versions.cache_clear()
    sys.modules.pop("made_up_transforms")


def test_a_changed_file_meets_no_old_entry(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 2)
    store = store_of(tmp_path / "store", cases)
    store.prepare(cases)
    before = np.asarray(store[cases[0]].image).copy()
    path = cases[0].images["ct"].path
    path.write_bytes(cases[1].images["ct"].path.read_bytes())
    changed = store_of(tmp_path / "store", cases)
    assert changed.prepare(cases) == 1
    after = np.asarray(changed[cases[0]].image)
    assert not np.array_equal(before, after) and np.array_equal(after, np.asarray(store[cases[1]].image))


def test_cases_that_fail_are_reported_together_and_the_others_kept(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 5)
    store = store_of(tmp_path / "store", cases)
    for number in (1, 3):
        path = cases[number].images["ct"].path
        path.write_bytes(path.read_bytes()[:900])
    seen: list[tuple[int, int]] = []
    with pytest.raises(UserErrors) as caught:
        store.prepare(cases, workers=2, report=lambda done, total: seen.append((done, total)))
    assert len(caught.value.errors) == 2
    assert all(name in str(caught.value) for name in ("image_01.nii", "image_03.nii"))
    assert seen == [(n, 5) for n in range(1, 6)]
    assert store.prepare([cases[0], cases[2], cases[4]]) == 0


def faulty(data: dict) -> dict:
    raise RuntimeError("no such axis")


def test_a_transform_that_fails_names_the_file(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 1)
    store = store_of(tmp_path / "store", cases, how=Preprocessing(faulty, LABELS))
    with pytest.raises(UserError, match=r"image_00\.nii.*no such axis"):
        store.prepare(cases)


def test_threads_and_processes_write_the_same(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 4)
    store_of(tmp_path / "threads", cases).prepare(cases, workers=2)
    store = store_of(tmp_path / "processes", cases)
    store.places.folder.mkdir()
    path = cases[2].images["ct"].path
    whole = path.read_bytes()
    path.write_bytes(whole[:900])
    done = list(in_processes(store._writer(), deque((store.key(case), case) for case in cases), 2))
    (wrong,) = [one for one in done if one.mistakes]
    assert len(done) == 4 and "image_02.nii" in wrong.mistakes[0][0]
    path.write_bytes(whole)
    assert store.prepare(cases) == 1
    store.close()
    assert contents(tmp_path / "threads") == contents(tmp_path / "processes") != {}


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    """Sums over a volume depend on how many threads share them; preprocessing always has one."""
    from monai.transforms import NormalizeIntensityd

    cases = write_cases(tmp_path / "data", 1, (64, 64, 64))
    how = Preprocessing(Compose([NormalizeIntensityd(keys=["image"])]), LABELS)
    before, written = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            store = store_of(tmp_path / f"s{threads}", cases, how=how)
            store.prepare(cases, workers=threads)
            assert torch.get_num_threads() == threads
            written.append(np.asarray(store[cases[0]].image).tobytes())
    finally:
        torch.set_num_threads(before)
    assert written[0] == written[1]


def test_open_files_and_mapped_bytes_are_bounded(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 12)
    store = store_of(tmp_path / "store", cases)
    store.prepare(cases)
    one = store[cases[0]].image.file_bytes  # type: ignore[attr-defined]
    for limits, most in (({"most_open": 3}, 3), ({"most_mapped": 2 * one + 10}, 2)):
        store._begin()
        store._files = OpenArrays(**limits)
        for case in cases * 2:
            cut(store[case].image, (0, 0, 0), (4, 4, 4))
            assert len(store._files) <= most and store._files.mapped <= max(3 * one, 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert before - len(store._files) <= len(list(Path("/proc/self/fd").iterdir())) <= before
    huge = OpenArrays(most_mapped=1)  # an array larger than the bound is used and let go
    store._begin()
    store._files = huge
    assert cut(store[cases[0]].image, (0, 0, 0), (4, 4, 4)).any() and len(huge) == 0


def test_a_store_sent_to_another_process_takes_no_arrays_along(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 2, (32, 32, 32))
    store = store_of(tmp_path / "store", cases)
    store.prepare(cases)
    for case in cases:
        np.asarray(store[case].image)
        assert store[case].centres[1].shape[1] == 3
    sent = pickle.dumps(store)
    assert len(sent) < 32**3
    assert_same(pickle.loads(sent)[cases[1]], store[cases[1]])


def test_images_of_one_array_stay_in_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", images=np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8))
    cases = [Case(f"c{i}", f"c{i}", {"x": ArraySource(tmp_path / "all.npz", "images", i)}) for i in range(3)]
    store = Store(tmp_path / "store", preprocessing(None), "r", {})
    assert store.prepare(cases, workers=2) == 3 and store.prepare(cases) == 0
    assert store[cases[2]].image.shape == (1, 8, 8)
    assert not list(tmp_path.glob("store/??"))


def test_a_batch_is_its_samples(tmp_path: Path) -> None:
    """With and without augmentation: the places of a batch do not see each other."""
    cases = write_cases(tmp_path / "data", 3)
    store = store_of(tmp_path / "store", cases)
    sampling = PatchSampling("foreground", (8, 6, 16), 0.5)
    draws = [Draw(1, place, place % 3) for place in range(5)]
    from monai.transforms import RandFlipd, RandGaussianNoised

    noisy = [RandGaussianNoised(keys=["image"], prob=0.5), RandFlipd(keys=["image", "label"], prob=0.5)]
    for augmentation in ([], noisy):
        patches = TrainingPatches(cases, store, sampling, augmentation, targets=None, seed=3)
        batch = patches.__getitems__(draws)
        assert batch["image"].shape == (5, 1, 8, 6, 16) and batch["label"].shape == (5, 1, 8, 6, 16)
        for place, draw in enumerate(draws):
            one = patches[draw]
            assert all(torch.equal(one[key], batch[key][place]) for key in ("image", "label"))
    classes = TrainingPatches(cases, store, sampling, [], targets=[2, 0, 1], seed=3).__getitems__(draws)
    assert classes["target"].tolist() == [[2], [0], [1], [2], [0]] and "label" not in classes


def test_worker_processes_live_from_epoch_to_epoch(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 3)
    store = store_of(tmp_path / "store", cases)
    store.prepare(cases)
    batches = EpochBatches(CaseOrder(((0, 1, 2),), seed=5), batches=3, batch_size=2)

    def loaded(workers: int) -> tuple[list[Batch], list[list[int]]]:
        patches = TrainingPatches(cases, store, PatchSampling("foreground", (8, 6, 16), 0.5), [], targets=None, seed=3)
        loader = training_loader(patches, batches, workers=workers)
        found: list[Batch] = []
        pids = []
        for epoch in range(3):
            batches.set_epoch(epoch)
            found += loader
            pids.append(patches.in_hand.workers() if patches.in_hand is not None else [])
        return found, pids

    (alone, _), (together, pids) = loaded(0), loaded(2)
    assert len(set(pids[0])) == 2 and pids[0] == pids[1] == pids[2]
    assert len(alone) == len(together) == 9
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("image", "label", "case"))
