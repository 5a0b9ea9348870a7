"""python -m pipeline compare: finished runs case by case, and what it refuses to compare."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.cli import main
from pipeline.config.schema import COMMANDS
from pipeline.prediction.trained_run import ModelCard
from tests.integration.generated import hippocampus
from tests.torture.killing import COMMON

SMALL = ["experiment=hippocampus_unet", "sampling.patch_size=[16,24,16]", "network.width=4", *COMMON]


@dataclass
class Written:
    """A finished run as its files record it: ten cases of five patients, five folds."""

    folder: Path
    task: str = "segmentation"
    classes: tuple[str, ...] = ("background", "lung")
    tolerance: float = 2.0
    better: float = 0.0  # what is added to every Dice
    other_content: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    shift: int = 0  # of the folds
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)
    targets: tuple[str, ...] = field(default=("no", "yes"))

    def write(self) -> Path:
        self.folder.mkdir(parents=True)
        cases = [f"case_{number}" for number in range(10) if f"case_{number}" not in self.absent]
        fold = {case: (int(case[-1]) // 2 + self.shift) % 5 for case in cases}
        card = ModelCard(self.task, self.classes, {0: "background", 1: "lung"} if self.task == "segmentation" else None,
                         None, ("CT",), False, 0.0, "last", False, 3, 1)  # fmt: skip
        (self.folder / "model.json").write_text(json.dumps(card.as_json()))
        (self.folder / "summary.json").write_text('{"unit": "mm"}')
        (self.folder / "config.yaml").write_text(yaml.safe_dump({"evaluation": {"tolerance_mm": self.tolerance}}))
        parts = [
            {"index": number, "train": {"cases": [case for case in cases if fold[case] != number]}}
            for number in range(5)
        ]
        (self.folder / "folds.json").write_text(json.dumps({"folds": parts}))
        with (self.folder / "manifest.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["case_id", "patient_id", "folds", "path", "sha256"])
            for case in cases:
                digest = ("f" if case in self.other_content else "0") * 32 + case
                rows.writerow([case, f"patient_{int(case[-1]) // 2}", fold[case], f"images/{case}.nii.gz", digest])
        self._cases([case for case in cases if fold[case] in self.folds], fold)
        return self.folder

    def _cases(self, cases: list[str], fold: dict[str, int]) -> None:
        rng = np.random.default_rng(0)
        table = pd.DataFrame({"case_id": cases, "patient_id": [f"patient_{int(case[-1]) // 2}" for case in cases]})
        table = table.assign(fold=[fold[case] for case in cases], repeat=0, site=None)
        if self.task == "segmentation":
            dice = np.array([0.6 + 0.03 * int(case[-1]) for case in cases]) + self.better
            table = table.assign(**{"class": "lung"}, dice=dice, hd95_mm=5.0, surface_dice=dice, volume_error_ml=-1.0,
                                 volume_error_percent=3.0, empty="neither")  # fmt: skip
        else:
            chance = rng.random(len(cases))
            target = [self.targets[int(case[-1]) % 2] for case in cases]
            table = table.assign(target=target, predicted="no", no=1 - chance, yes=chance)
        table.to_csv(self.folder / "cases.csv", index=False)


def refused(capsys: pytest.CaptureFixture[str], *runs: Path, overrides: tuple[str, ...] = ()) -> str:
    output = runs[0].parent / "compared"
    assert main(["compare", f"runs=[{','.join(map(str, runs))}]", f"output={output}", *overrides]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert not output.exists() or not list(output.iterdir())
    return captured.err


def test_a_better_run_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Written(tmp_path / "old").write(), Written(tmp_path / "new", better=0.1).write()
    output = tmp_path / "compared"
    assert main(["compare", f"runs=[{old},{new}]", "metrics=[dice,hd95_mm]", f"output={output}"]) == 0
    said = capsys.readouterr().out
    assert "new - old (reference), 10 cases" in said
    assert "5/0/0" in said
    rows = json.loads((output / "compare.json").read_text())["differences"]
    dice = next(row for row in rows if row["metric"] == "dice")
    assert dice["difference"] == pytest.approx(0.1)
    assert (dice["p"], dice["p_holm"]) == (pytest.approx(2 / 2**5), pytest.approx(4 / 2**5))
    assert pd.read_csv(output / "compare.csv")["patients"].tolist() == [5, 5]
    assert len(pd.read_csv(output / "differences.csv")) == 10
    assert (output / "compare.png").stat().st_size > 5000


def test_patterns_names_and_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        Written(tmp_path / "runs" / name).write()
    given = [f"runs=[{tmp_path}/runs/*]", "names=[one,two,three]", "reference=two", "pairs=all", "metrics=[dice]"]
    assert main(["compare", *given, f"output={tmp_path / 'compared'}"]) == 0
    rows = json.loads((tmp_path / "compared" / "compare.json").read_text())["differences"]
    assert [(row["run"], row["reference"]) for row in rows] == [("one", "two"), ("three", "two"), ("three", "one")]
    assert {row["p_holm"] for row in rows} == {1.0}
    assert "reference=four is none of the runs" in refused(
        capsys, tmp_path / "runs" / "a", tmp_path / "runs" / "b", overrides=("reference=four",)
    )


def test_other_folds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Written(tmp_path / "old").write(), Written(tmp_path / "new", shift=1).write()
    for overrides in ((), ("intersection=true",)):
        said = refused(capsys, old, new, overrides=overrides)
        assert "new and old differ in the fold of 10 case(s)" in said
        assert "case_0: fold 1 and fold 0" in said


def test_other_data_are_refused_and_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Written(tmp_path / "old").write()
    new = Written(tmp_path / "new", better=0.1, other_content=("case_3",), absent=("case_8",)).write()
    said = refused(capsys, old, new)
    assert "case_3: images/case_3.nii.gz has sha256 ffffffffffff and 000000000000" in said
    assert "case_8: only in old" in said
    assert "intersection=true" in said
    output = tmp_path / "shared"
    assert main(["compare", f"runs=[{old},{new}]", "intersection=true", f"output={output}"]) == 0
    assert "Left out, not the same files in all runs: case_3, case_8" in capsys.readouterr().out
    assert set(pd.read_csv(output / "differences.csv")["case_id"]) == {f"case_{n}" for n in (0, 1, 2, 4, 5, 6, 7, 9)}


def test_folds_that_one_run_did_not_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Written(tmp_path / "old").write(), Written(tmp_path / "new", folds=(0, 1, 2)).write()
    assert "old: 4 case(s) that another run did not predict: case_6 (fold 3)" in refused(capsys, old, new)
    assert main(["compare", f"runs=[{old},{new}]", "intersection=true", f"output={tmp_path / 'shared'}"]) == 0
    assert "predicted by old and not by all: case_6 (fold 3)" in capsys.readouterr().out


def test_other_tasks_classes_tolerances_and_targets_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Written(tmp_path / "old").write()
    other = Written(tmp_path / "liver", classes=("background", "liver")).write()
    assert "liver and old differ in classes" in refused(capsys, old, other)
    wide = Written(tmp_path / "wide", tolerance=3.0).write()
    said = refused(capsys, old, wide)
    assert "evaluation.tolerance_mm of the surface Dice: 3.0 and 2.0" in said
    assert main(["compare", f"runs=[{old},{wide}]", "metrics=[dice]", f"output={tmp_path / 'dice'}"]) == 0
    first = Written(tmp_path / "first", task="classification", classes=("no", "yes")).write()
    assert "first and old differ in task" in refused(capsys, old, first)
    turned = Written(tmp_path / "turned", task="classification", classes=("no", "yes"), targets=("yes", "no")).write()
    assert "turned and first differ in the target of 10 case(s)" in refused(capsys, first, turned)


def test_what_is_no_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Written(tmp_path / "old").write(), Written(tmp_path / "new").write()
    assert "one run alone" in refused(capsys, old)
    assert "stands there twice" in refused(capsys, old, old)
    assert "there is no dise" in refused(capsys, old, new, overrides=("metrics=[dise]",))
    (new / "summary.json").unlink()
    assert "it did not end" in refused(capsys, old, new)
    assert "not the folder of a run" in refused(capsys, old, tmp_path)


def test_the_bootstrap_is_that_of_the_evaluation() -> None:
    from pipeline.config.compose import compose
    from pipeline.config.validate import validate

    trees = {
        name: validate(compose(name, words), COMMANDS[name]).tree
        for name, words in (("compare", ["runs=[a,b]"]), ("train", []))
    }
    evaluation = trees["train"]["evaluation"]
    assert [trees["compare"][key] for key in ("resamples", "seed")] == [evaluation["resamples"], evaluation["seed"]]


def test_a_trained_run_and_its_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run by its id in MLflow and its folder, copied: exactly no difference."""
    hippocampus(tmp_path / "data")
    store = f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"
    given = [f"data.root={tmp_path / 'data'}", f"cache={tmp_path / 'cache'}", "schedule.epochs=1", store]
    assert main([*SMALL, *given, f"output={tmp_path / 'a'}"]) == 0
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    run_id = json.loads((tmp_path / "a" / "summary.json").read_text())["mlflow"]["run_id"]
    output = tmp_path / "compared"
    assert main(["compare", f"runs=['{run_id}',{tmp_path / 'b'}]", f"output={output}", store]) == 0
    rows = json.loads((output / "compare.json").read_text())["differences"]
    assert {row["metric"] for row in rows} >= {"dice", "hd95_mm", "surface_dice"}
    assert {row["of_class"] for row in rows} == {None, "Anterior", "Posterior"}
    assert all((row["difference"], row["p"]) == (0.0, 1.0) for row in rows)
    assert "b - a (reference), 10 cases" in capsys.readouterr().out
