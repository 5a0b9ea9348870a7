"""Finished runs compared case by case: checked, tested, written, drawn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from pipeline.config.nearest import did_you_mean
from pipeline.errors import UserError
from pipeline.evaluation.comparison import COMPARED, Analysis, Comparison, compare
from pipeline.evaluation.comparison_figure import comparison_figure
from pipeline.evaluation.comparison_report import as_plain, explanations, print_comparison
from pipeline.json_file import write_json
from pipeline.training.comparable_runs import comparable_runs
from pipeline.training.recorded_runs import RecordedRun

TABLE_FILE, JSON_FILE, CASES_FILE, FIGURE_FILE = "compare.csv", "compare.json", "differences.csv", "compare.png"


def compare_folders(
    folders: Mapping[str, Path],
    *,
    reference: str,
    all_pairs: bool,
    intersection: bool,
    metrics: Sequence[str] | None,
    per_class: bool,
    resamples: int,
    seed: int,
    level: float,
    output: Path,
    console: Console,
) -> Comparison:
    """Compare the runs in ``folders`` (by name); leave the table, the differences of cases and a figure in ``output``.

    ``reference``: the name of the run that the others are compared with; ``all_pairs``: every run with every other.
    Raises UserError where the runs cannot be compared, naming cases, folds and sha256.
    """
    runs = [RecordedRun.read(name, folder) for name, folder in folders.items()]
    known = COMPARED[runs[0].card.task]
    tests = Analysis(known_metrics(metrics, known), per_class, resamples, seed, level)
    compared, notes = comparable_runs(runs, intersection=intersection, metrics=tests.metrics)
    card = runs[0].card
    classes = card.class_names
    if card.task == "segmentation":
        scored = set(compared[0].table["class"])
        classes = tuple(name for name in classes if name in scored)
    tables = {run.name: run.table for run in compared}
    comparison = compare(card.task, tables, pairs_of(list(folders), reference, all_pairs), classes, tests)
    _write(comparison, output, notes, folders, reference, tests)
    comparison_figure(comparison, output / FIGURE_FILE, level=level)
    print_comparison(comparison, console, level=level, notes=notes)
    return comparison


def pairs_of(names: Sequence[str], reference: str, all_pairs: bool) -> list[tuple[str, str]]:
    """Pairs (run, reference): the others with ``reference`` first, then with ``all_pairs`` those among themselves."""
    others = [name for name in names if name != reference]
    pairs = [(name, reference) for name in others]
    return pairs + [(later, earlier) for earlier, later in itertools.combinations(others, 2)] if all_pairs else pairs


def known_metrics(metrics: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Those asked for, or all; raises UserError for a name that is no metric."""
    for name in metrics or ():
        if name not in known:
            raise UserError(f"metrics: there is no {name}", did_you_mean(name, known))
    return tuple(dict.fromkeys(metrics)) if metrics else tuple(known)


def _write(
    comparison: Comparison,
    output: Path,
    notes: Sequence[str],
    folders: Mapping[str, Path],
    reference: str,
    tests: Analysis,
) -> None:
    rows: list[dict[str, Any]] = [as_plain(row) for row in comparison.rows]
    pd.DataFrame(rows).to_csv(output / TABLE_FILE, index=False)
    comparison.of_cases.to_csv(output / CASES_FILE, index=False)
    write_json(
        output / JSON_FILE,
        {
            "runs": {name: str(folder) for name, folder in folders.items()},
            "reference": reference,
            "resamples": tests.resamples,
            "seed": tests.seed,
            "level": tests.level,
            "notes": [*explanations(comparison.rows, tests.level), *notes],
            "differences": rows,
        },
    )
