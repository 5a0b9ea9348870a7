"""Folds: patients never parted, strata even, the same from the same seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.assignment import assign_evenly
from pipeline.data.case import Case, Dataset, FileSource, Labels
from pipeline.data.folds import Fold, assert_disjoint, make_folds, read_folds, write_folds
from pipeline.errors import UserError


def dataset_of(cases: Sequence[Case], task: str = "classification") -> Dataset:
    classes = tuple(sorted({case.target for case in cases if case.target}))
    labels = Labels({1: "lung"}) if task == "segmentation" else None
    return Dataset("test", Path("/data"), task, tuple(cases), ("image",), labels, classes, 2)  # type: ignore[arg-type]


def case(number: int, patient: int | None = None, target: str | None = None, **more: object) -> Case:
    image = {"image": FileSource(Path(f"/data/{number}.png"))}
    patient_id = f"p{number if patient is None else patient}"
    return Case(f"c{number:04d}", patient_id, image, target=target, **more)  # type: ignore[arg-type]


def random_cases(seed: int, patients: int) -> list[Case]:
    """Patients of one to five cases, one in five of them ill."""
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    for patient in range(patients):
        target = "ill" if rng.uniform() < 0.2 else "well"
        cases += [case(len(cases) + extra, patient, target) for extra in range(int(rng.integers(1, 6)))]
    return cases


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 5])
def test_every_case_is_validated_once_and_no_patient_is_parted(seed: int, count: int) -> None:
    dataset = dataset_of(random_cases(seed, 12))
    folds = make_folds(dataset, count=count, seed=seed)
    assert [fold.index for fold in folds] == list(range(count))
    assert Counter(c for fold in folds for c in fold.validation) == Counter(c.case_id for c in dataset.cases)
    patient = {c.case_id: c.patient_id for c in dataset.cases}
    for fold in folds:
        assert {patient[c] for c in fold.train}.isdisjoint({patient[c] for c in fold.validation})
        assert set(fold.train) | set(fold.validation) == set(patient)
        assert fold.train and fold.validation


def test_the_seed_alone_decides() -> None:
    dataset = dataset_of(random_cases(0, 40))
    assert make_folds(dataset, count=5, seed=3) == make_folds(dataset, count=5, seed=3)
    assert make_folds(dataset, count=5, seed=3) != make_folds(dataset, count=5, seed=4)


@pytest.mark.parametrize(("cases", "rare"), [(23, 7), (566, 287), (100, 5)])
def test_one_case_per_patient_differs_by_one_at_most_in_size_and_class(cases: int, rare: int) -> None:
    dataset = dataset_of([case(number, target="ill" if number < rare else "well") for number in range(cases)])
    target = {c.case_id: c.target for c in dataset.cases}
    folds = make_folds(dataset, count=5, seed=0)
    sizes = [len(fold.validation) for fold in folds]
    ill = [sum(target[c] == "ill" for c in fold.validation) for fold in folds]
    assert max(ill) - min(ill) <= 1
    assert max(sizes) - min(sizes) <= 1


def test_strata_are_more_even_than_scikit_learns_on_small_sets() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed in range(30):
        cases = random_cases(seed, 30)
        ill = np.array([c.target == "ill" for c in cases])
        number = {c.case_id: at for at, c in enumerate(cases)}
        folds = [[number[c] for c in fold.validation] for fold in make_folds(dataset_of(cases), count=5, seed=seed)]
        ours.append(_unevenness(folds, ill))
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        groups = [c.patient_id for c in cases]
        theirs.append(_unevenness([held for _, held in splitter.split(ill, ill, groups)], ill))
    assert np.mean(ours) < np.mean(theirs)


def _unevenness(folds: Sequence[Sequence[int]], ill: np.ndarray) -> float:
    """Standard deviation over folds of the number of cases and of ill cases, each over its mean."""
    sizes, found = [len(fold) for fold in folds], [ill[list(fold)].sum() for fold in folds]
    return float(np.std(sizes) / np.mean(sizes) + np.std(found) / np.mean(found))


def test_foreground_is_stratified_by_quantile_with_the_empty_apart() -> None:
    cases = [case(number) for number in range(40)]
    volume = {c.case_id: 0.0 if number < 10 else float(number) for number, c in enumerate(cases)}
    folds = make_folds(dataset_of(cases, "segmentation"), count=5, seed=1, foreground=volume)
    for fold in folds:
        values = [volume[c] for c in fold.validation]
        assert len(values) == 8
        assert values.count(0.0) == 2
        assert sum(value >= 33 for value in values) in (1, 2)  # the largest seven or eight: one quantile


def test_sites_may_be_stratified() -> None:
    cases = [case(number, site="north" if number < 5 else "south") for number in range(20)]
    for fold in make_folds(dataset_of(cases), count=5, seed=0, stratify="site"):
        assert sum(c in {f"c{number:04d}" for number in range(5)} for c in fold.validation) == 1


def test_duplicates_stay_in_one_fold() -> None:
    cases = [case(number, target="a" if number % 2 else "b") for number in range(20)]
    together = [["c0000", "c0001", "c0002"], ["c0002", "c0019"], ["unknown"], []]
    for seed in range(10):
        folds = make_folds(dataset_of(cases), count=5, seed=seed, together=together)
        holding = [{"c0000", "c0001", "c0002", "c0019"} & set(fold.validation) for fold in folds]
        assert sorted(map(len, holding)) == [0, 0, 0, 0, 4]


def test_given_folds_are_honoured() -> None:
    cases = [case(number, patient=number // 2, fold=number // 2 % 3) for number in range(12)]
    folds = make_folds(dataset_of(cases), count=3, seed=0)
    assert folds[1].validation == ("c0002", "c0003", "c0008", "c0009")
    assert make_folds(dataset_of(cases), count=5, seed=0) == folds
    with pytest.raises(UserError, match=r"data\.columns\.fold gives folds 0, 2"):
        make_folds(dataset_of([case(0, fold=0), case(1, fold=2)]), count=2, seed=0)
    with pytest.raises(UserError, match="1 cases have no fold, such as c0099"):
        make_folds(dataset_of([*cases, case(99)]), count=3, seed=0)
    with pytest.raises(UserError, match="patient p0 stands in training and in validation"):
        make_folds(dataset_of([*cases, case(98, patient=0, fold=1)]), count=3, seed=0)


def test_a_given_split_is_one_fold_and_test_cases_stay_out() -> None:
    splits = ["train", "Training", "val", "test", None]
    cases = [case(number, split=split) for number, split in enumerate(splits)]
    assert make_folds(dataset_of(cases), count=5, seed=0, predefined=True) == (Fold(0, ("c0000", "c0001"), ("c0002",)),)
    with pytest.raises(UserError, match="patient p0"):
        make_folds(dataset_of([*cases, case(9, patient=0, split="val")]), count=5, seed=0, predefined=True)
    with pytest.raises(UserError, match=r"folds\.predefined=true needs"):
        make_folds(dataset_of(cases[:2]), count=5, seed=0, predefined=True)


def test_more_folds_than_patients() -> None:
    cases = [case(number, patient=number % 3) for number in range(9)]
    with pytest.raises(UserError, match=r"folds\.count=5 needs at least 5 patients; data has 3"):
        make_folds(dataset_of(cases), count=5, seed=0)
    assert len(make_folds(dataset_of(cases), count=3, seed=0)) == 3
    with pytest.raises(UserError, match="in 2 groups without duplicates"):
        make_folds(dataset_of(cases), count=3, seed=0, together=[["c0000", "c0001"]])
    with pytest.raises(UserError, match="at least 2 folds"):
        make_folds(dataset_of(cases), count=1, seed=0)


@pytest.mark.parametrize(
    ("stratify", "fault"), [("class", "classification"), ("foreground", "masks"), ("site", "site")]
)
def test_strata_that_the_data_do_not_have(stratify: str, fault: str) -> None:
    dataset = dataset_of([case(number) for number in range(9)], "segmentation")
    with pytest.raises(UserError, match=fault):
        make_folds(dataset, count=3, seed=0, stratify=stratify)  # type: ignore[arg-type]


def test_folds_are_read_back_as_written(tmp_path: Path) -> None:
    dataset = dataset_of(random_cases(1, 15))
    folds = make_folds(dataset, count=5, seed=7)
    write_folds(tmp_path / "folds.json", folds, dataset, 7)
    assert read_folds(tmp_path / "folds.json", dataset) == folds
    content = json.loads((tmp_path / "folds.json").read_text())
    assert content["seed"] == 7
    assert content["folds"][0]["validation"]["patients"] == sorted(
        {c.patient_id for c in dataset.cases if c.case_id in folds[0].validation}
    )
    assert make_folds(dataset, count=2, seed=0, file=tmp_path / "folds.json") == folds


def test_nnunets_splits_are_read_and_must_fit(tmp_path: Path) -> None:
    dataset = dataset_of([case(number, patient=number // 2) for number in range(6)])
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["c0002", "c0003", "c0004", "c0005"], "val": ["c0001", "c0000"]}]))
    assert make_folds(dataset, count=5, seed=0, file=path) == (
        Fold(0, ("c0002", "c0003", "c0004", "c0005"), ("c0000", "c0001")),
    )
    for content, fault in [
        ([{"train": ["c0000"], "val": ["c0001"]}], "patient p0"),
        ([{"train": ["c0000"], "val": ["c0009"]}], "not in the data, such as c0009"),
        ([{"train": ["c0000"], "val": []}], "no case for validation"),
        ([{"train": ["c0000"]}], "neither"),
        ({"a": 1}, "neither"),
        ([], "no fold"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=fault):
            make_folds(dataset, count=5, seed=0, file=path)
    with pytest.raises(UserError, match="cannot be read"):
        make_folds(dataset, count=5, seed=0, file=tmp_path / "no.json")


def test_disjointness_is_by_patient() -> None:
    dataset = dataset_of([case(0, 0), case(1, 0), case(2, 1)])
    with pytest.raises(UserError, match="patient p0"):
        assert_disjoint(Fold(0, ("c0000",), ("c0001",)), dataset)


def test_no_fold_stays_empty_however_uneven_the_groups() -> None:
    weights = np.array([[100, 0], [1, 0], [0, 1], [1, 1], [0, 50]], float)
    for seed in range(20):
        assert sorted(assign_evenly(weights, 5, np.random.default_rng(seed))) == [0, 1, 2, 3, 4]
