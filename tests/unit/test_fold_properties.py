"""What must hold of folds for any patients, strata and seed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.case import Case
from pipeline.data.folds import Fold, make_folds
from tests.unit.test_folds import case, dataset_of

SEEDS = st.integers(0, 2**31)
TARGETS = st.sampled_from(["a", "b", "c"])


@st.composite
def cohorts(draw: st.DrawFn) -> list[Case]:
    """Patients of one to four cases of one class and one site each."""
    patients = draw(st.lists(st.tuples(st.integers(1, 4), TARGETS, st.sampled_from("xyz")), min_size=9, max_size=25))
    cases: list[Case] = []
    for patient, (size, target, site) in enumerate(patients):
        cases += [case(len(cases) + more, patient, target, site=site) for more in range(size)]
    return cases


def parts(folds: tuple[Fold, ...]) -> list[tuple[set[str], set[str]]]:
    return [(set(fold.train), set(fold.validation)) for fold in folds]


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(2, 4), SEEDS, st.sampled_from(["none", "class", "site", ["class", "site"]]))
def test_disjoint_and_complete(cases: list[Case], count: int, seed: int, stratify: str) -> None:
    folds = make_folds(dataset_of(cases), count=count, seed=seed, stratify=stratify, inner=2)  # type: ignore[arg-type]
    patient = {c.case_id: c.patient_id for c in cases}
    assert Counter(c for fold in folds for c in fold.validation) == Counter(list(patient))
    for fold in folds:
        assert set(fold.train) == set(patient) - set(fold.validation)
        assert Counter(c for part in fold.inner for c in part.validation) == Counter(fold.train)
        for part in (fold, *fold.inner):
            assert part.validation
            assert {patient[c] for c in part.train}.isdisjoint({patient[c] for c in part.validation})


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(2, 4), SEEDS, st.sampled_from(["none", "class", ["class", "site"]]))
def test_sizes_lie_within_the_largest_patient(cases: list[Case], count: int, seed: int, stratify: str) -> None:
    folds = make_folds(dataset_of(cases), count=count, seed=seed, stratify=stratify)  # type: ignore[arg-type]
    sizes = [len(fold.validation) for fold in folds]
    assert max(sizes) - min(sizes) <= max(Counter(c.patient_id for c in cases).values())


@settings(max_examples=60, deadline=None)
@given(st.lists(TARGETS, min_size=4, max_size=60), st.integers(2, 4), SEEDS)
def test_strata_and_sizes_differ_by_one_where_patients_have_one_case(targets: list[str], count: int, seed: int) -> None:
    cases = [case(number, target=target) for number, target in enumerate(targets)]
    folds = make_folds(dataset_of(cases), count=count, seed=seed)
    for stratum in [None, *set(targets)]:
        sizes = [sum(stratum in (None, targets[int(c[1:])]) for c in fold.validation) for fold in folds]
        assert max(sizes) - min(sizes) <= 1


@settings(max_examples=60, deadline=None)
@given(cohorts(), SEEDS, st.randoms(use_true_random=False), st.sampled_from(["patient", "site"]))
def test_the_order_of_cases_does_not_matter(cases: list[Case], seed: int, random: object, group: str) -> None:
    count = 2 if group == "patient" or len({c.site for c in cases}) > 2 else None
    if group == "site" and len({c.site for c in cases}) < 2:
        return
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    volume = {c.case_id: float(len(c.patient_id) + (c.target == "a")) for c in cases}
    asked = {"count": count, "seed": seed, "group": group, "foreground": volume}
    for stratify in ("class", "foreground"):
        one = make_folds(dataset_of(cases), **asked, stratify=stratify)  # type: ignore[arg-type]
        other = make_folds(dataset_of(shuffled), **asked, stratify=stratify)  # type: ignore[arg-type]
        assert parts(one) == parts(other)
        assert one == make_folds(dataset_of(cases), **asked, stratify=stratify)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(TARGETS, min_size=2, max_size=60), st.floats(0.05, 0.95), SEEDS)
def test_hold_out_is_near_its_fraction(targets: list[str], fraction: float, seed: int) -> None:
    cases = [case(number, target=target) for number, target in enumerate(targets)]
    (fold,) = make_folds(dataset_of(cases), count=5, seed=seed, scheme="holdout", test_fraction=fraction)
    assert abs(len(fold.validation) - fraction * len(cases)) <= 2
    assert fold.train and fold.validation
