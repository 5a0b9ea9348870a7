from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.evaluation.classification_metrics import classification_metrics
from pipeline.evaluation.report import print_summary
from pipeline.evaluation.segmentation_metrics import EMPTY_MASK_RULE
from pipeline.evaluation.summary import summarise_classification, summarise_segmentation

NAN = float("nan")


def row(case, fold, name, dice, empty="neither", patient=None, error=0.0):
    return {
        "case_id": case,
        "patient_id": patient or case,
        "fold": fold,
        "site": "a",
        "class": name,
        "dice": dice,
        "hd95_mm": NAN if empty == "both" else 2.0,
        "surface_dice": dice,
        "volume_error_ml": error,
        "volume_error_percent": 10 * error,
        "empty": empty,
    }


@pytest.fixture
def rows():
    return pd.DataFrame(
        [
            row("c1", 0, "lung", 0.9, error=-1.0),
            row("c1", 0, "tumour", 0.5),
            row("c2", 0, "lung", 0.7, error=3.0),
            row("c2", 0, "tumour", NAN, "both"),
            row("c3", 1, "lung", 0.8),
            row("c3", 1, "tumour", 0.0, "prediction"),
            row("c4", 1, "lung", 1.0),
            row("c4", 1, "tumour", 0.7),
        ]
    )


def summarise(rows, folds=(0, 1), seed=0, resamples=500):
    return summarise_segmentation(rows, folds=folds, resamples=resamples, seed=seed)


def predictions(n=60, names=("benign", "malignant"), seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(len(names), size=n)
    chances = rng.dirichlet(np.ones(len(names)), n)
    chances[np.arange(n), truth] += 0.3
    table = pd.DataFrame(chances / chances.sum(axis=1, keepdims=True), columns=list(names))
    table["target"] = [names[index] for index in truth]
    table["patient_id"] = [f"p{index // 2}" for index in range(n)]
    table["fold"] = np.arange(n) % 3
    return table


def test_segmentation_by_hand(rows):
    summary = summarise(rows)
    dice = summary["metrics"]["dice"]
    assert dice["per_class"]["lung"]["mean"] == pytest.approx(0.85)
    assert dice["per_class"]["tumour"]["mean"] == pytest.approx(0.4)
    assert dice["mean"] == pytest.approx(0.625)
    assert dice["per_fold"] == pytest.approx([(0.8 + 0.5) / 2, (0.9 + 0.35) / 2])
    assert dice["ci95"][0] < dice["mean"] < dice["ci95"][1]
    assert summary["metrics"]["volume_error_ml"]["per_class"]["lung"]["mean"] == pytest.approx(1.0)
    assert summary["counts"]["tumour"] == {"n_scored": 3, "n_true_negative": 1, "n_missed": 1, "n_false_positive": 0}


def test_the_order_of_rows_does_not_matter(rows):
    shuffled = summarise(rows.sample(frac=1, random_state=3))
    expected = summarise(rows)
    for metric, entry in expected["metrics"].items():
        assert shuffled["metrics"][metric]["mean"] == pytest.approx(entry["mean"])
        assert shuffled["metrics"][metric]["ci95"] == pytest.approx(entry["ci95"])
    assert shuffled["counts"] == expected["counts"]


def test_json_is_strict(rows):
    rows.loc[rows["class"] == "tumour", ["dice", "surface_dice", "hd95_mm", "volume_error_percent"]] = NAN
    summary = summarise(rows, folds=(0, 1, 2))
    text = json.dumps(summary, allow_nan=False)
    dice = json.loads(text)["metrics"]["dice"]
    assert dice["per_class"]["tumour"] == {"mean": None, "ci95": [None, None]}
    assert dice["mean"] == pytest.approx(0.85)
    assert dice["per_fold"] == [pytest.approx(0.8), pytest.approx(0.9), None]


def test_a_class_of_one_patient_has_no_interval(rows):
    rows.loc[(rows["class"] == "tumour") & (rows["case_id"] != "c1"), "dice"] = NAN
    dice = summarise(rows)["metrics"]["dice"]
    assert dice["per_class"]["tumour"] == {"mean": pytest.approx(0.5), "ci95": [None, None]}


def test_classes_that_a_case_lacks_are_left_out(rows):
    partly = rows[~((rows["case_id"] == "c3") & (rows["class"] == "tumour"))]
    assert summarise(partly)["metrics"]["dice"]["per_class"]["tumour"]["mean"] == pytest.approx(0.6)


def test_cases_without_fold(rows):
    summary = summarise(rows.assign(fold=None), folds=())
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(0.625)
    assert summary["metrics"]["dice"]["per_fold"] == []


def test_a_case_twice_in_a_fold_is_refused(rows):
    with pytest.raises(ValueError, match="twice"):
        summarise(pd.concat([rows, rows.iloc[:1]]))


def test_patients_are_the_sampling_unit(rows):
    """Copies of each patient's case change no interval; as patients of their own they narrow it."""
    copies = [rows.assign(case_id=rows["case_id"] + str(k)) for k in range(8)]
    expected = summarise(rows)["metrics"]["dice"]["ci95"]
    assert summarise(pd.concat(copies))["metrics"]["dice"]["ci95"] == pytest.approx(expected)
    independent = pd.concat(copies).assign(patient_id=lambda table: table["case_id"])
    low, high = summarise(independent)["metrics"]["dice"]["ci95"]
    assert high - low < 0.7 * (expected[1] - expected[0])


def test_classification_agrees_with_the_metrics():
    table = predictions()
    names = ["benign", "malignant"]
    summary = summarise_classification(table, names, folds=(0, 1, 2), resamples=300, seed=0)
    truth = (table["target"] == "malignant").to_numpy(int)
    chances = table[names].to_numpy()
    for metric, entry in classification_metrics(truth, chances, class_names=names).items():
        ours = summary["metrics"][metric]
        assert ours["mean"] == pytest.approx(entry["mean"])
        assert ours["ci95"][0] <= ours["mean"] <= ours["ci95"][1]
        assert {name: value["mean"] for name, value in ours["per_class"].items()} == pytest.approx(entry["per_class"])
        first = (table["fold"] == 0).to_numpy()
        of_fold = classification_metrics(truth[first], chances[first], class_names=names)
        assert ours["per_fold"][0] == pytest.approx(of_fold[metric]["mean"])
    counts = np.array(summary["confusion_matrix"]["counts"])
    assert counts.sum() == 60
    assert counts.trace() / 60 == pytest.approx(summary["metrics"]["accuracy"]["mean"])
    json.dumps(summary, allow_nan=False)


def test_classification_with_a_class_nobody_has():
    table = predictions().assign(other=0.0)
    summary = summarise_classification(table, ["benign", "malignant", "other"], folds=(), resamples=100, seed=0)
    auroc = summary["metrics"]["auroc"]
    assert auroc["per_class"]["other"] == {"mean": None, "ci95": [None, None]}
    assert auroc["mean"] is not None
    assert auroc["ci95"][0] is not None


def test_unknown_targets_are_refused():
    with pytest.raises(ValueError, match="malignant"):
        summarise_classification(predictions(), ["benign"], folds=(), resamples=10, seed=0)


def printed(summary, width):
    stream = io.StringIO()
    print_summary(summary, Console(file=stream, width=width))
    return stream.getvalue()


def test_report_shows_every_number_at_any_width(rows):
    summary = {"experiment": "lung_unet", "folds": [{"fold": 0}, {"fold": 1}], "n_cases": 4, **summarise(rows)}
    wide = printed(summary, 140)
    assert "Dice" in wide.splitlines()[4]
    for part in ("lung_unet, 4 cases", "0.625 [", "tumour", "fold 1", "1 missed"):
        assert part in wide
    assert EMPTY_MASK_RULE in " ".join(wide.split())
    narrow = printed(summary, 60)
    assert max(len(line) for line in narrow.splitlines()) <= 60
    for part in ("0.625 [", "0.850", "0.400", "0.650"):
        assert part in narrow
    assert "\x1b" not in wide


def test_report_of_names_with_markup():
    table = predictions(names=("[red]a", "b[/]"))
    summary = summarise_classification(table, ["[red]a", "b[/]"], folds=(0, 1, 2), resamples=50, seed=0)
    for width in (70, 160):
        text = printed(summary, width)
        assert "[red]a" in text
        assert "b[/]" in text
        assert "Confusion matrix" in text


def repeated(rows):
    """The same cases again in folds 2 and 3, lungs worse by 0.2 and tumours by nothing."""
    again = rows.assign(fold=rows["fold"] + 2)
    again.loc[again["class"] == "lung", "dice"] -= 0.2
    return pd.concat([rows, again], ignore_index=True)


def test_a_case_of_several_repeats_enters_once_by_its_mean(rows):
    once, twice = summarise(rows), summarise(repeated(rows), folds=range(4))
    dice = twice["metrics"]["dice"]
    assert dice["per_class"]["lung"]["mean"] == pytest.approx(0.75)
    assert dice["per_class"]["tumour"]["mean"] == pytest.approx(0.4)
    assert dice["per_fold"] == pytest.approx([0.65, 0.625, 0.55, 0.525])
    # averaging a case with itself changes nothing: four patients stay four, and the interval does not shrink
    same = summarise(pd.concat([rows, rows.assign(fold=rows["fold"] + 2)]), folds=range(4))
    for metric, entry in once["metrics"].items():
        assert same["metrics"][metric]["mean"] == pytest.approx(entry["mean"], nan_ok=True)
        assert same["metrics"][metric]["ci95"] == pytest.approx(entry["ci95"], nan_ok=True)
    assert twice["counts"]["tumour"]["n_scored"] == 6


def test_a_repeat_in_which_a_case_has_no_value_is_left_out_of_its_mean(rows):
    again = rows.assign(fold=rows["fold"] + 2)
    again.loc[(again["case_id"] == "c2") & (again["class"] == "tumour"), ["dice", "empty"]] = [0.0, "truth"]
    tumour = summarise(pd.concat([rows, again]), folds=range(4))["metrics"]["dice"]["per_class"]["tumour"]
    assert tumour["mean"] == pytest.approx((0.5 + 0.0 + 0.0 + 0.7) / 4)


def test_classification_is_the_mean_of_the_repeats_not_of_an_ensemble():
    table = predictions().assign(repeat=0)
    other = predictions(seed=0).assign(repeat=1)
    names = ["benign", "malignant"]
    other[names] = other[names].to_numpy()[:, ::-1]  # every case the wrong way round
    both = pd.concat([table, other], ignore_index=True)
    asked = {"folds": [0, 1, 2], "resamples": 300, "seed": 0}
    one, two, mean = (summarise_classification(part, names, **asked) for part in (table, other, both))
    for metric, entry in mean["metrics"].items():
        halves = [part["metrics"][metric]["mean"] for part in (one, two)]
        assert entry["mean"] == pytest.approx(np.mean(halves)), metric
        for name, value in entry["per_class"].items():
            assert value["mean"] == pytest.approx(
                np.mean([part["metrics"][metric]["per_class"][name]["mean"] for part in (one, two)])
            )
    assert np.sum(mean["confusion_matrix"]["counts"]) == 120
    # each patient is drawn with all its repeats: here they cancel out in every resample
    assert mean["metrics"]["accuracy"]["ci95"] == pytest.approx([0.5, 0.5])
    same = summarise_classification(pd.concat([table, table.assign(repeat=1)]), names, **asked)
    for metric, entry in one["metrics"].items():
        assert same["metrics"][metric]["ci95"] == pytest.approx(entry["ci95"])


def test_the_table_tells_of_repeats(rows):
    console = Console(file=io.StringIO(), width=200)
    print_summary(summarise(rows) | {"repeats": 3, "folds": [{"fold": 0}, {"fold": 1}]}, console)
    assert "mean of 3 repeats" in console.file.getvalue()
