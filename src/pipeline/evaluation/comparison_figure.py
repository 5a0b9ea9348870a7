"""The comparison of runs as one picture: the difference of every case, their mean and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.comparison import LOWER_IS_BETTER, Comparison, Difference
from pipeline.evaluation.comparison_report import p_value
from pipeline.evaluation.figures import COLOURS, new_figure, quiet, save
from pipeline.evaluation.report import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_INCHES, PANEL_INCHES, LEAST_INCHES = 0.34, 3.6, 1.9
SPREAD = 0.28  # of the dots of a row, in rows
GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, fill a row evenly


def comparison_figure(comparison: Comparison, path: Path, *, level: float) -> None:
    """Draw a panel per metric of cases with a row per pair and class, and one for metrics that no case has.

    Dots: cases (in the mean over classes: the mean of its classes). Bar: the mean difference and its interval, filled
    where the corrected p is below 1 - level.
    """
    of_cases = [name for name in LABELS if name in comparison.of_cases.columns]
    others = [row for row in comparison.rows if row.metric not in of_cases]
    panels = [(name, [row for row in comparison.rows if row.metric == name]) for name in of_cases]
    if others:
        panels.append(("", others))
    several = len({(row.run, row.reference) for row in comparison.rows}) > 1
    columns = min(2, len(panels)) if max(len(rows) for _, rows in panels) > 6 else min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    tallest = max(len(rows) for _, rows in panels)
    longest = max(len(_label(row, several, bool(name))) for name, rows in panels for row in rows)
    width = PANEL_INCHES + 0.07 * longest
    figure = new_figure(width * columns, lines * max(LEAST_INCHES, 1.0 + ROW_INCHES * tallest))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, (name, rows) in zip(axes, panels, strict=False):
        _panel(panel, rows, comparison.of_cases, several, level)
        title = LABELS[name] if name else "Scores of all cases"
        better = "lower" if name in LOWER_IS_BETTER else "higher"
        panel.set_title(f"{title}, {better} is better")
        panel.set_yticks(range(len(rows)), [_label(row, several, bool(name)) for row in rows])
        quiet(panel)
        panel.grid(False, axis="y")
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    first = comparison.rows[0]
    pair = "run - reference" if several else f"{first.run} - {first.reference}"
    said = f"{100 * level:g} % interval, p corrected for all tests; filled where it is below {1 - level:.2g}"
    figure.supxlabel(f"Difference of each case, {pair} ({said})", fontsize=9)
    save(figure, path)


def _panel(panel: Axes, rows: Sequence[Difference], cases: pd.DataFrame, several: bool, level: float) -> None:
    panel.axvline(0, color="0.4", lw=0.8)
    pairs = list(dict.fromkeys((row.run, row.reference) for row in rows))
    for height, row in enumerate(rows):
        colour = COLOURS[pairs.index((row.run, row.reference)) % len(COLOURS)] if several else COLOURS[0]
        dots = _dots(row, cases)
        offsets = (np.arange(1, len(dots) + 1) * GOLDEN % 1.0 - 0.5) * 2 * SPREAD
        panel.plot(dots, height + offsets, "o", ms=2.6, mew=0, alpha=0.45, color=colour)
        if not math.isnan(row.low):
            panel.plot([row.low, row.high], [height, height], color="black", lw=1.6, solid_capstyle="butt")
        sure = not math.isnan(row.p_holm) and row.p_holm < 1 - level
        panel.plot(
            [row.difference], [height], "D", ms=5, mec="black", mew=1.0, mfc="black" if sure else "white", zorder=4
        )
        said = f"p {p_value(row.p_holm)}" if not math.isnan(row.p_holm) else ""
        panel.text(1.0, height, said, transform=panel.get_yaxis_transform(), fontsize=7, va="center", ha="left")
    panel.set_ylim(len(rows) - 0.4, -0.6)


def _dots(row: Difference, cases: pd.DataFrame) -> NDArray[Any]:
    """The differences of the cases of a row, sorted by case; none where a case has no value."""
    if row.metric not in cases.columns:
        return np.empty(0)
    chosen = cases[(cases["run"] == row.run) & (cases["reference"] == row.reference)]
    if "class" in chosen.columns:
        if row.of_class is not None:
            chosen = chosen[chosen["class"] == row.of_class]
        chosen = chosen.groupby("case_id", as_index=False)[[row.metric]].mean()
    values: NDArray[Any] = chosen.sort_values("case_id")[row.metric].to_numpy(float)
    known: NDArray[Any] = values[~np.isnan(values)]
    return known


def _label(row: Difference, several: bool, one_metric: bool) -> str:
    parts = [] if one_metric else [LABELS[row.metric]]
    if row.of_class is not None or not (parts or several):
        parts.append(row.of_class or "mean over classes")
    if several:
        parts.append(f"{row.run} - {row.reference}")
    return ", ".join(parts)
