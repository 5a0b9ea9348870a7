"""The comparison of runs as tables that fit the page, and as plain types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.evaluation.comparison import LOWER_IS_BETTER, SIGNED_RANK, Comparison, Difference
from pipeline.evaluation.report import LABELS, number
from pipeline.evaluation.segmentation_metrics import EMPTY_MASK_RULE


def print_comparison(comparison: Comparison, console: Console, *, level: float, notes: Sequence[str] = ()) -> None:
    """One table for each pair of runs, and what is to be known to read them."""
    rows = comparison.rows
    for pair in dict.fromkeys((row.run, row.reference) for row in rows):
        console.print(_table([row for row in rows if (row.run, row.reference) == pair], level))
    for line in [*explanations(rows, level), *notes]:
        console.print(Text(line, style="dim"), soft_wrap=True)


def explanations(rows: Sequence[Difference], level: float) -> list[str]:
    """How the numbers were made, in words."""
    tests = {row.test for row in rows}
    said = f"Difference: run minus reference, {100 * level:g} % interval by bootstrap over patients."
    if SIGNED_RANK in tests:
        said += " p: Wilcoxon's signed-rank test of the patients' mean differences"
        said += ", by the bootstrap where no patient has a value." if len(tests) > 1 else "."
    else:
        said += " p: by the bootstrap."
    tested = sum(not math.isnan(row.p) for row in rows)
    lines = [f"{said} p (Holm): corrected for all {tested} tests together."]
    lower = [LABELS[name] for name in dict.fromkeys(row.metric for row in rows) if name in LOWER_IS_BETTER]
    if lower:
        lines.append(f"Lower is better: {', '.join(lower)}. Wins are patients for whom the run is better.")
    if any(row.metric in ("dice", "surface_dice", "hd95_mm") for row in rows):
        lines.append(EMPTY_MASK_RULE)
    unpaired = [row for row in rows if (row.only_run or row.only_reference) and row.of_class is not None]
    unpaired = unpaired or [row for row in rows if row.only_run or row.only_reference]
    for row in unpaired:
        lines.append(
            f"{row.run} - {row.reference}, {_name(row)}: without a difference, as one of the two has no value, "
            f"{row.only_run} case(s) that only {row.run} scores and {row.only_reference} that only {row.reference} does"
        )
    return lines


def as_plain(row: Difference) -> dict[str, Any]:
    """For JSON: NaN is None."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(row).items()
    }


def _table(rows: Sequence[Difference], level: float) -> Table:
    first = rows[0]
    title = f"{first.run} - {first.reference} (reference), {max(row.cases for row in rows)} cases"
    table = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", title_style="bold")
    counted = any(row.wins is not None for row in rows)
    headings = ["", "reference", "run", f"difference [{100 * level:g} % CI]", "p", "p (Holm)", "patients"]
    for index, heading in enumerate([*headings, *(["win/tie/loss"] if counted else [])]):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in rows:
        cells = [
            _name(row), number(row.metric, _or_none(row.reference_mean)), number(row.metric, _or_none(row.run_mean)),
            interval(row), p_value(row.p), p_value(row.p_holm), str(row.patients),
        ]  # fmt: skip
        if counted:
            cells.append("-" if row.wins is None else f"{row.wins}/{row.ties}/{row.losses}")
        table.add_row(*map(Text, cells))
    return table


def _name(row: Difference) -> str:
    label = LABELS[row.metric]
    return label if row.of_class is None else f"{label}, {row.of_class}"


def interval(row: Difference) -> str:
    """The difference and its interval, signed."""
    point, low, high = (_signed(row.metric, value) for value in (row.difference, row.low, row.high))
    return point if math.isnan(row.low) else f"{point} [{low}, {high}]"


def _signed(metric: str, value: float) -> str:
    said = number(metric, _or_none(value))
    return f"+{said}" if value > 0 else said


def p_value(p: float) -> str:
    """A p-value for people."""
    if math.isnan(p):
        return "-"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
