"""Paired differences of cases: values by hand, patients as units, identical runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.comparison import COMPARED, Analysis, Comparison, Difference, compare
from pipeline.evaluation.comparison_figure import comparison_figure
from pipeline.evaluation.comparison_report import as_plain, print_comparison
from pipeline.evaluation.statistics import patient_bootstrap, weighted_means

NAN = float("nan")
HOW = Analysis(("dice", "hd95_mm"), per_class=True, resamples=500, seed=0, level=0.95)


def segmentation(values: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows (case, patient, fold, class, Dice, HD95)."""
    table = pd.DataFrame(values, columns=["case_id", "patient_id", "fold", "class", "dice", "hd95_mm"])
    table["repeat"] = 0
    table["empty"] = np.where(table["dice"].isna(), "both", "neither")
    return table.assign(surface_dice=table["dice"], volume_error_ml=1.0, volume_error_percent=NAN)


REFERENCE = segmentation(
    [("a1", "a", 0, "lung", 0.80, 4.0), ("a2", "a", 0, "lung", 0.60, 8.0), ("b", "b", 1, "lung", 0.90, 2.0),
     ("c", "c", 1, "lung", 0.70, 5.0), ("a1", "a", 0, "tumour", 0.5, 9.0), ("a2", "a", 0, "tumour", NAN, NAN),
     ("b", "b", 1, "tumour", 0.4, 7.0), ("c", "c", 1, "tumour", 0.6, 3.0)]
)  # fmt: skip
RUN = segmentation(
    [("c", "c", 1, "tumour", 0.9, 1.0), ("a1", "a", 0, "lung", 0.90, 3.0), ("a2", "a", 0, "lung", 0.90, 5.0),
     ("b", "b", 1, "lung", 0.85, 2.0), ("c", "c", 1, "lung", 0.90, 4.0), ("a1", "a", 0, "tumour", 0.6, 9.0),
     ("a2", "a", 0, "tumour", 0.0, 50.0), ("b", "b", 1, "tumour", NAN, NAN)]
)  # fmt: skip


def of(comparison: Comparison, metric: str, of_class: str | None = None) -> Difference:
    (row,) = [row for row in comparison.rows if (row.metric, row.of_class) == (metric, of_class)]
    return row


def compared(run: pd.DataFrame, reference: pd.DataFrame, how: Analysis = HOW) -> Comparison:
    return compare("segmentation", {"new": run, "old": reference}, [("new", "old")], ["lung", "tumour"], how)


def test_differences_by_hand() -> None:
    comparison = compared(RUN, REFERENCE)
    lung = of(comparison, "dice", "lung")
    assert (lung.patients, lung.cases) == (3, 4)
    assert lung.difference == pytest.approx((0.1 + 0.3 - 0.05 + 0.2) / 4)
    assert (lung.run_mean, lung.reference_mean) == (pytest.approx(0.8875), pytest.approx(0.75))
    assert (lung.wins, lung.ties, lung.losses) == (2, 0, 1)
    assert lung.p == pytest.approx(
        0.5
    )  # patients +0.2, -0.05, +0.2: 2 of the 8 assignments of signs at least so far up
    assert lung.low < lung.difference < lung.high
    mean = of(comparison, "dice")
    assert mean.difference == pytest.approx((0.1375 + (0.1 + 0.3) / 2) / 2)
    distance = of(comparison, "hd95_mm", "lung")
    assert distance.difference == pytest.approx((-1 - 3 + 0 - 1) / 4)
    assert (distance.wins, distance.ties, distance.losses) == (2, 1, 0)  # lower is better


def test_a_case_without_a_value_in_one_run_is_left_out_and_counted() -> None:
    tumour = of(compared(RUN, REFERENCE), "dice", "tumour")
    assert (tumour.cases, tumour.patients) == (2, 2)
    assert (tumour.only_run, tumour.only_reference) == (1, 1)
    assert tumour.difference == pytest.approx(0.2)
    console = Console(width=200, record=True, file=io.StringIO())
    print_comparison(compared(RUN, REFERENCE), console, level=0.95)
    said = console.export_text()
    assert "new - old, Dice, tumour: without a difference" in said
    assert "1 case(s) that only new scores and 1 that only old does" in said
    assert "HD95 is the diagonal of the image" in said


def test_identical_runs_differ_by_nothing() -> None:
    comparison = compared(REFERENCE, REFERENCE.sample(frac=1, random_state=0))
    for row in comparison.rows:
        assert (row.difference, row.low, row.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)
        assert (row.wins, row.losses) == (0, 0)
        assert row.ties == row.patients


def test_repeats_of_a_case_count_once() -> None:
    twice = [pd.concat([table, table.assign(fold=table["fold"] + 2, repeat=1)]) for table in (RUN, REFERENCE)]
    for once, again in zip(compared(RUN, REFERENCE).rows, compared(*twice).rows, strict=True):
        assert as_plain(once) == pytest.approx(as_plain(again))


def test_all_pairs_are_corrected_together() -> None:
    tables = {"a": REFERENCE, "b": RUN, "c": RUN}
    how = Analysis(("dice",), per_class=False, resamples=200, seed=0, level=0.95)
    comparison = compare("segmentation", tables, [("b", "a"), ("c", "a"), ("c", "b")], ["lung", "tumour"], how)
    assert [row.p for row in comparison.rows] == pytest.approx([0.5, 0.5, 1.0])
    assert [row.p_holm for row in comparison.rows] == pytest.approx([1.0, 1.0, 1.0])


def test_one_patient_has_neither_interval_nor_p() -> None:
    one = [table[table["patient_id"] == "a"] for table in (RUN, REFERENCE)]
    row = of(compared(*one), "dice", "lung")
    assert row.difference == pytest.approx(0.2)
    assert np.isnan([row.low, row.high, row.p, row.p_holm]).all()
    json.dumps(as_plain(row), allow_nan=False)


def test_intervals_hold_the_true_difference() -> None:
    """Of 200 studies of 30 patients with two cases each, about 95 % of the intervals hold the true difference 0.02."""
    rng = np.random.default_rng(1)
    patients = [f"p{number // 2}" for number in range(60)]
    held = 0
    for study in range(200):
        difference = 0.02 + rng.normal(0, 0.05, 30).repeat(2) + rng.normal(0, 0.02, 60)
        column = difference[:, None]
        found = patient_bootstrap(
            patients, lambda weights, values=column: weighted_means(values, weights), resamples=300, seed=study
        )
        held += int(found.low[0] <= 0.02 <= found.high[0])
    assert 178 <= held <= 198


NAMES = ["benign", "malignant"]
ALL = Analysis(COMPARED["classification"], per_class=True, resamples=300, seed=0, level=0.95)


def predictions(seed: int, gain: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.arange(40) % 2
    chance = 1 / (1 + np.exp(-(gain * (2 * truth - 1) + rng.normal(size=40))))
    table = pd.DataFrame({"case_id": [f"c{n}" for n in range(40)], "patient_id": [f"p{n // 2}" for n in range(40)]})
    target = [NAMES[index] for index in truth]
    return table.assign(fold=np.arange(40) % 4, repeat=0, target=target, benign=1 - chance, malignant=chance)


def test_differences_of_a_classification() -> None:
    good, poor = predictions(0, 2.0), predictions(1, 0.3)
    comparison = compare("classification", {"good": good, "poor": poor}, [("good", "poor")], NAMES, ALL)
    truth = (good["target"] == "malignant").to_numpy()
    auroc = [roc_auc_score(truth, table["malignant"]) for table in (good, poor)]
    row = of(comparison, "auroc")
    assert row.difference == pytest.approx(auroc[0] - auroc[1])
    assert (row.run_mean, row.reference_mean) == (pytest.approx(auroc[0]), pytest.approx(auroc[1]))
    assert row.test == "bootstrap"
    assert 0 < row.p < 0.05
    assert row.low > 0
    assert row.wins is None
    brier = of(comparison, "brier")
    errors = [2 * np.square(table["malignant"] - truth) for table in (good, poor)]
    assert brier.difference == pytest.approx((errors[0] - errors[1]).mean())
    assert brier.test == "signed-rank"
    assert brier.wins is not None
    assert brier.wins > 10  # lower is better
    right = of(comparison, "accuracy")
    hits = [(table["malignant"].round() == truth).mean() for table in (good, poor)]
    assert right.difference == pytest.approx(hits[0] - hits[1])
    assert [row.of_class for row in comparison.rows if row.metric == "auroc"] == [None]  # of two classes the same
    assert list(comparison.of_cases.columns) == ["run", "reference", "case_id", "patient_id", "accuracy", "brier"]


def test_identical_classifications_differ_by_nothing() -> None:
    table = predictions(0, 1.0)
    comparison = compare("classification", {"a": table, "b": table}, [("b", "a")], NAMES, ALL)
    for row in comparison.rows:
        assert (row.difference, row.low, row.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)


def test_figures(tmp_path: Path) -> None:
    comparison_figure(compared(RUN, REFERENCE), tmp_path / "segmentation.png", level=0.95)
    tables = {name: predictions(seed, gain) for name, seed, gain in (("a", 0, 0.3), ("b", 1, 2.0), ("c", 2, 1.0))}
    several = compare("classification", tables, [("b", "a"), ("c", "a")], NAMES, ALL)
    comparison_figure(several, tmp_path / "classification.png", level=0.95)
    for path in tmp_path.iterdir():
        assert np.asarray(Image.open(path).convert("L")).std() > 5
