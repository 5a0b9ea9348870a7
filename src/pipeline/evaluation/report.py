"""The result of a run as one table that fits the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.evaluation.segmentation_metrics import EMPTY_MASK_RULE

LABELS = {
    "dice": "Dice",
    "hd95_mm": "HD95 (mm)",
    "surface_dice": "Surface Dice",
    "volume_error_ml": "Volume error (ml)",
    "volume_error_percent": "Volume error (%)",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score",
}

MEASURED = ("hd95_mm", "volume_error_ml", "volume_error_percent")  # not scores from 0 to 1: three digits that count

Metrics = Mapping[str, Mapping[str, Any]]


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the metrics of a summary: mean with its 95 % interval, each class, each fold.

    summary: what summary.json holds; ``metrics`` is needed, ``folds`` (each with its number ``fold``), ``counts``,
    ``confusion_matrix``, ``unit`` (mm or px), ``n_cases``, ``n_patients`` and ``experiment`` are shown where they are.
    A table too wide for the console is parted into one for the means, one for the classes and one for the folds.
    Without a terminal it is plain text.
    """
    console = console or Console()
    console.print(_render(summary, console))


def _render(summary: Mapping[str, Any], console: Console) -> RenderableType:
    metrics: Metrics = summary["metrics"]
    classes = list(dict.fromkeys(name for entry in metrics.values() for name in entry["per_class"]))
    n_folds = max((len(entry["per_fold"]) for entry in metrics.values()), default=0)
    numbers = [fold["fold"] for fold in summary["folds"]] if summary.get("folds") else list(range(n_folds))
    folds = [f"fold {number}" for number in numbers] if n_folds > 1 else []
    parts: list[RenderableType] = _tables(metrics, classes, folds, _title(summary), console)
    if "confusion_matrix" in summary:
        parts.append(_confusion_table(summary["confusion_matrix"], summary.get("repeats", 1)))
    if "dice" in metrics:
        parts.append(Text(f"{EMPTY_MASK_RULE}{_counts(summary.get('counts', {}))}", style="dim"))
        if summary.get("unit") == "px":
            parts.append(Text("The images have no voxel size: a pixel counts as 1 mm.", style="dim"))
    over = "Mean over classes of all cases" if classes else "All cases"
    repeats = f", mean of {summary['repeats']} repeats" if summary.get("repeats", 1) > 1 else ""
    parts.append(Text(f"{over} pooled over the folds{repeats} [95 % interval, bootstrap over patients].", style="dim"))
    return Group(*parts)


def _tables(
    metrics: Metrics, classes: Sequence[str], folds: Sequence[str], title: str, console: Console
) -> list[RenderableType]:
    means = {LABELS.get(name, name): _interval(name, entry) for name, entry in metrics.items()}
    of_class = [
        [number(name, entry["per_class"].get(of, {}).get("mean")) for name, entry in metrics.items()] for of in classes
    ]
    of_fold = [
        [number(name, entry["per_fold"][index]) for name, entry in metrics.items()] for index in range(len(folds))
    ]
    shown = list(classes) if len(classes) > 1 else []
    columns = [*of_class[: len(shown)], *of_fold]
    whole = _table(title, ["", "mean [95 % CI]", *shown, *folds])
    for index, (label, mean) in enumerate(means.items()):
        whole.add_row(label, mean, *(column[index] for column in columns))
    if console.measure(whole, options=console.options.update(max_width=10_000)).maximum <= console.width:
        return [whole]
    first = _table(title, ["", "mean [95 % CI]"])
    for label, mean in means.items():
        first.add_row(label, mean)
    tables: list[RenderableType] = [first]
    for heading, names, rows in (("class", shown, of_class), ("fold", folds, of_fold)):
        given = [index for index in range(len(means)) if any(row[index] != "-" for row in rows)]
        if names:
            table = _table("", [heading, *(list(means)[index] for index in given)])
            for name, row in zip(names, rows, strict=False):
                table.add_row(Text(name.removeprefix("fold ")), *(row[index] for index in given))
            tables.append(table)
    return tables


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if index else "left", overflow="fold")
    return table


def _confusion_table(matrix: Mapping[str, Any], repeats: int) -> Table:
    title = f"Confusion matrix (cases{', in all repeats' if repeats > 1 else ''})"
    table = _table(title, ["true \\ predicted", *matrix["classes"]])
    for name, row in zip(matrix["classes"], matrix["counts"], strict=True):
        table.add_row(Text(name), *(str(count) for count in row))
    return table


def _title(summary: Mapping[str, Any]) -> str:
    parts = [str(summary["experiment"])] if "experiment" in summary else []
    parts += [f"{summary[key]} {key.removeprefix('n_')}" for key in ("n_cases", "n_patients") if key in summary]
    return ", ".join(parts)


def _counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    lines = [
        f"{name}: {of['n_scored']} scored, {of['n_true_negative']} true negatives, {of['n_missed']} missed, "
        f"{of['n_false_positive']} false positives"
        for name, of in counts.items()
    ]
    return "".join(f"\n  {line}" for line in lines)


def _interval(name: str, entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    if low is None or high is None:
        return number(name, entry["mean"])
    return f"{number(name, entry['mean'])} [{number(name, low)}, {number(name, high)}]"


def number(name: str, value: float | None) -> str:
    """A metric's value with the digits that count."""
    if value is None:
        return "-"
    if name not in MEASURED:
        return f"{value:.3f}"
    return f"{value:#.3g}" if abs(value) < 99.95 else f"{value:.0f}"
