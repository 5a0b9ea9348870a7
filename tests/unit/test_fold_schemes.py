"""Sites held out, repeats, hold-out, inner folds, several strata, and given folds that part duplicates."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.case import Case
from pipeline.data.folds import Fold, assert_disjoint, make_folds, read_folds, write_folds
from pipeline.errors import UserError
from tests.unit.test_folds import case, dataset_of, random_cases


def at_sites(*sizes: int, target: str | None = None) -> list[Case]:
    """One patient a case; site a has the first number of cases, b the second ..."""
    sites = [name for name, size in zip("abcdefgh", sizes, strict=False) for _ in range(size)]
    return [case(number, site=site, target=target) for number, site in enumerate(sites)]


def sites_of(cases: list[Case], chosen: tuple[str, ...]) -> set[str | None]:
    return {c.site for c in cases if c.case_id in chosen}


@pytest.mark.parametrize("count", [None, 3])
def test_each_site_is_left_out_once_in_the_order_of_names(count: int | None) -> None:
    cases = at_sites(4, 9, 2)
    folds = make_folds(dataset_of(cases[::-1]), count=count, seed=0, group="site")
    assert [sites_of(cases, fold.validation) for fold in folds] == [{"a"}, {"b"}, {"c"}]
    assert [sites_of(cases, fold.train) for fold in folds] == [{"b", "c"}, {"a", "c"}, {"a", "b"}]
    assert folds == make_folds(dataset_of(cases[::-1]), count=count, seed=9, group="site")


def test_sites_are_grouped_into_fewer_folds_of_even_size() -> None:
    cases = at_sites(8, 7, 6, 5, 4, 2)
    for seed in range(10):
        folds = make_folds(dataset_of(cases), count=2, seed=seed, group="site")
        assert sites_of(cases, folds[0].validation).isdisjoint(sites_of(cases, folds[1].validation))
        assert sorted(len(fold.validation) for fold in folds) in ([16, 16], [15, 17])


def test_a_patient_at_two_sites_ties_them(caplog: pytest.LogCaptureFixture) -> None:
    cases = [*at_sites(3, 3, 3), case(50, patient=0, site="b")]  # patient 0 is of site a
    folds = make_folds(dataset_of(cases), count=None, seed=0, group="site")
    assert [sites_of(cases, fold.validation) for fold in folds] == [{"a", "b"}, {"c"}]
    assert "3 sites are held out in 2 folds" in caplog.text
    with pytest.raises(UserError, match="data has 3 in 2 groups that share no patient"):
        make_folds(dataset_of(cases), count=3, seed=0, group="site")


def test_sites_that_cannot_be_held_out() -> None:
    cases = at_sites(3, 3)
    with pytest.raises(UserError, match=r"1 of 7 cases have no site, such as c0030"):
        make_folds(dataset_of([*cases, case(30)]), count=None, seed=0, group="site")
    with pytest.raises(UserError, match=r"folds\.count=3 needs at least 3 sites; data has 2"):
        make_folds(dataset_of(cases), count=3, seed=0, group="site")
    with pytest.raises(UserError, match=r"folds\.count=null needs at least 2 sites; data has 1"):
        make_folds(dataset_of(cases[:3]), count=None, seed=0, group="site")
    given = [replace(c, fold=number % 2) for number, c in enumerate(cases)]
    with pytest.raises(UserError, match="site a stands in training and in validation, as do 1 more"):
        make_folds(dataset_of(given), count=2, seed=0, group="site")


def test_one_patient_is_left_out_where_no_count_is_given() -> None:
    dataset = dataset_of([case(number, patient=number // 2) for number in range(8)])
    folds = make_folds(dataset, count=None, seed=0)
    assert [fold.validation for fold in folds] == [(f"c{n:04d}", f"c{n + 1:04d}") for n in (0, 2, 4, 6)]


def test_repeats_are_different_drawings_and_the_first_is_the_plain_one() -> None:
    dataset = dataset_of(random_cases(0, 30))
    folds = make_folds(dataset, count=4, seed=2, scheme="repeated", repeats=3)
    assert [fold.index for fold in folds] == list(range(12))
    assert [fold.repeat for fold in folds] == [0] * 4 + [1] * 4 + [2] * 4
    assert folds[:4] == make_folds(dataset, count=4, seed=2)
    for repeat in range(3):
        held = Counter(c for fold in folds if fold.repeat == repeat for c in fold.validation)
        assert held == Counter(c.case_id for c in dataset.cases)
    assert len({frozenset(fold.validation for fold in folds if fold.repeat == r) for r in range(3)}) == 3


def test_no_two_repeats_are_alike_even_where_few_drawings_exist() -> None:
    dataset = dataset_of([case(number) for number in range(4)])  # three ways to pair four
    folds = make_folds(dataset, count=2, seed=0, repeats=3)
    assert len({frozenset(fold.validation for fold in folds if fold.repeat == r) for r in range(3)}) == 3
    with pytest.raises(UserError, match=r"folds\.repeats=4: these 4 groups of cases give 3 different drawings"):
        make_folds(dataset, count=2, seed=0, repeats=4)


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"scheme": "repeated"}, "folds.scheme=repeated with folds.repeats=1"),
        ({"count": None, "repeats": 2}, "can be done in one way only"),
        ({"scheme": "holdout", "test_fraction": 1.0}, "must lie between 0 and 1"),
        ({"predefined": True, "repeats": 2}, "the folds are given, not drawn"),
    ],
)
def test_what_cannot_be_repeated_or_held_out(asked: dict[str, object], fault: str) -> None:
    cases = [case(number, split="val" if number % 2 else "train") for number in range(8)]
    with pytest.raises(UserError, match=fault):
        make_folds(dataset_of(cases), **{"count": 2, "seed": 0} | asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cases", "fraction", "expected"), [(10, 0.2, 2), (566, 0.25, 142), (40, 0.5, 20), (3, 0.01, 1)]
)
def test_hold_out_takes_the_fraction(cases: int, fraction: float, expected: int) -> None:
    dataset = dataset_of([case(number, target="ill" if number % 4 == 0 else "well") for number in range(cases)])
    (fold,) = make_folds(dataset, count=5, seed=1, scheme="holdout", test_fraction=fraction)
    assert abs(len(fold.validation) - expected) <= 1
    assert len(fold.train) + len(fold.validation) == cases
    ill = sum(int(c[1:]) % 4 == 0 for c in fold.validation)
    assert abs(ill - len(fold.validation) / 4) <= 1


def test_hold_out_of_two_patients_and_repeated() -> None:
    (fold,) = make_folds(dataset_of([case(0), case(1)]), count=5, seed=0, scheme="holdout", test_fraction=0.05)
    assert (len(fold.train), len(fold.validation)) == (1, 1)
    folds = make_folds(dataset_of([case(n) for n in range(20)]), count=5, seed=0, scheme="holdout", repeats=3)
    assert [(fold.index, fold.repeat) for fold in folds] == [(0, 0), (1, 1), (2, 2)]
    assert len({fold.validation for fold in folds}) == 3


def test_inner_folds_divide_the_training_part(tmp_path: Path) -> None:
    dataset = dataset_of(random_cases(4, 24))
    folds = make_folds(dataset, count=3, seed=5, inner=4, together=[["c0000", dataset.cases[-1].case_id]])
    patient = {c.case_id: c.patient_id for c in dataset.cases}
    for fold in folds:
        assert [part.index for part in fold.inner] == [0, 1, 2, 3]
        assert Counter(c for part in fold.inner for c in part.validation) == Counter(fold.train)
        for part in fold.inner:
            assert set(part.train) == set(fold.train) - set(part.validation)
            assert {patient[c] for c in part.train}.isdisjoint({patient[c] for c in part.validation})
    assert len({fold.inner for fold in folds}) == 3
    assert tuple(replace(fold, inner=()) for fold in folds) == make_folds(
        dataset, count=3, seed=5, together=[["c0000", dataset.cases[-1].case_id]]
    )
    path = tmp_path / "folds.json"
    write_folds(path, folds, dataset, 5)
    assert read_folds(path, dataset) == folds
    assert make_folds(dataset, count=7, seed=0, file=path) == folds
    assert make_folds(dataset, count=7, seed=0, file=path, inner=4) == folds
    with pytest.raises(UserError, match="fold 0 as given has 4 inner folds"):
        make_folds(dataset, count=7, seed=0, file=path, inner=3)
    with pytest.raises(UserError, match=r"fold 0, training part: folds\.inner=20 needs at least 20 patients"):
        make_folds(dataset, count=3, seed=5, inner=20)


def test_inner_folds_hold_out_sites_too() -> None:
    cases = at_sites(4, 3, 5, 2)
    for fold in make_folds(dataset_of(cases), count=None, seed=0, group="site", inner=3):
        assert sorted(len(sites_of(cases, part.validation)) for part in fold.inner) == [1, 1, 1]


def test_inner_folds_are_held_to_the_rule() -> None:
    dataset = dataset_of([case(0), case(1), case(2), case(3, 1)])
    outer = Fold(0, ("c0001", "c0002", "c0003"), ("c0000",))
    with pytest.raises(UserError, match="inner folds have case c0000, which it does not train on"):
        assert_disjoint(replace(outer, inner=(Fold(0, ("c0000",), ("c0001",)),)), dataset)
    with pytest.raises(UserError, match="patient p1 stands"):
        assert_disjoint(replace(outer, inner=(Fold(0, ("c0001", "c0002"), ("c0003",)),)), dataset)
    with pytest.raises(UserError, match="the image of case c0001 stands in training and in validation"):
        assert_disjoint(outer, dataset, together=[["c0001", "c0000"]])


def test_several_strata_are_even_at_once() -> None:
    cases = [
        case(number, target="ill" if number % 4 == 0 else "well", site="north" if number < 40 else "south")
        for number in range(100)
    ]
    by_id = {c.case_id: c for c in cases}
    for seed in range(5):
        for fold in make_folds(dataset_of(cases), count=5, seed=seed, stratify=["class", "site"]):
            assert len(fold.validation) == 20
            assert sum(by_id[c].target == "ill" for c in fold.validation) == 5
            assert sum(by_id[c].site == "north" for c in fold.validation) == 8


def test_whole_sites_are_stratified_by_class_as_far_as_they_allow() -> None:
    ill = {"a": 4, "b": 0, "c": 4, "d": 0}  # of five cases a site
    cases = [
        case(5 * number + more, site=site, target="ill" if more < ill[site] else "well")
        for number, site in enumerate(ill)
        for more in range(5)
    ]
    for seed in range(10):
        for fold in make_folds(dataset_of(cases), count=2, seed=seed, group="site", stratify="class"):
            assert len(sites_of(cases, fold.validation) & {"a", "c"}) == 1


def test_duplicates_of_validation_cases_leave_a_given_training_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [case(number, split="val" if number >= 6 else "train") for number in range(8)]
    together = [["c0001", "c0007"], ["c0002", "c0003"]]
    (fold,) = make_folds(dataset_of(cases), count=5, seed=0, scheme="predefined", together=together)
    assert fold == Fold(0, ("c0000", "c0002", "c0003", "c0004", "c0005"), ("c0006", "c0007"))
    assert "1 left out of training, such as c0001" in caplog.text
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["c0001", "c0004"], "val": ["c0007"]}]))
    assert make_folds(dataset_of(cases), count=5, seed=0, file=path, together=together) == (
        Fold(0, ("c0004",), ("c0007",)),
    )
    numbered = [replace(c, fold=number % 2) for number, c in enumerate(cases)]
    first, second = make_folds(dataset_of(numbered), count=2, seed=0, together=[["c0000", "c0001"]])
    assert "c0001" not in first.train and "c0000" in first.validation
    assert "c0000" not in second.train and "c0001" in second.validation


def test_precedence_of_what_the_table_gives(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    both = [case(number, fold=number % 2, split="val" if number < 2 else "train") for number in range(6)]
    folds = make_folds(dataset_of(both), count=5, seed=0, scheme="predefined")
    assert [len(fold.validation) for fold in folds] == [3, 3]
    assert make_folds(dataset_of(both), count=5, seed=0, predefined=True)[0].validation == ("c0000", "c0001")
    with pytest.raises(UserError, match=r"folds\.scheme=holdout, but the data give each case its fold"):
        make_folds(dataset_of(both), count=5, seed=0, scheme="holdout")
    with pytest.raises(UserError, match=r"folds\.scheme=predefined without a column of folds needs cases of split"):
        make_folds(dataset_of([case(0), case(1)]), count=5, seed=0, scheme="predefined")
    assert caplog.text == ""


def test_a_file_must_number_its_folds(tmp_path: Path) -> None:
    dataset = dataset_of([case(number, site="x") for number in range(4)])
    folds = make_folds(dataset, count=2, seed=0)
    write_folds(tmp_path / "folds.json", folds, dataset, 0)
    content = json.loads((tmp_path / "folds.json").read_text())
    assert content["folds"][1]["validation"]["sites"] == ["x"]
    assert (tmp_path / "folds.json").read_text().count("\n") < 40
    content["folds"] = content["folds"][1:]
    (tmp_path / "folds.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="numbers its folds 1"):
        read_folds(tmp_path / "folds.json", dataset)
