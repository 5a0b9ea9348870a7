"""Which components to remove: decided on the Dice of all predictions that were made out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.components import FOREGROUND, LargestComponents, Overlaps, Pieces
from pipeline.evaluation.summary import json_number, mean_of_repeats

RULE = (
    "Only the largest connected component is kept of what is named in 'kept'. A step is kept where the mean Dice over "
    "classes, pooled over all predictions out of fold, rises and that of no class falls: first of all foreground, then "
    "of each class."
)

FloatArray = NDArray[np.float64]
Prediction = tuple[int, str]  # fold and case


@dataclass(frozen=True)
class Studied:
    """A prediction that has several components: its pieces, their overlap with the truth, and what is scored of it."""

    pieces: Pieces
    overlaps: Overlaps
    parts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Choice:
    """The steps that are kept, and what was found of every step, ready for JSON."""

    kept: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]


def choose(
    table: pd.DataFrame, studied: Mapping[Prediction, Studied], components: LargestComponents, steps: Sequence[str]
) -> Choice:
    """Try ``steps`` one after the other and keep those that raise the pooled mean Dice and lower that of no class.

    ``table``: one row per fold, case and class with ``dice``. ``studied``: the predictions with several components;
    all others are the same after any step.
    """
    classes = list(dict.fromkeys(table["class"]))
    column = {name: place for place, name in enumerate(classes)}
    scored = table.drop_duplicates(["fold", "case_id"])
    row = {key: place for place, key in enumerate(zip(scored["fold"], scored["case_id"], strict=True))}
    values = np.full((len(row), len(classes)), np.nan)
    for fold, case_id, name, dice in table[["fold", "case_id", "class", "dice"]].itertuples(index=False):
        values[row[fold, case_id], column[name]] = dice
    case = scored.groupby("case_id", sort=False).ngroup().to_numpy()

    kept: tuple[str, ...] = ()
    found = []
    before = _pooled(values, case)
    now = {key: of.pieces.index for key, of in studied.items()}
    for step in steps:
        tried, changed = values.copy(), {}
        for key, of in studied.items():
            indices = components.step(of.pieces, now[key], step)
            if not np.array_equal(indices, now[key]):
                changed[key] = indices
                for name, dice in of.overlaps.dice(indices, of.parts).items():
                    tried[row[key], column[name]] = dice
        after = _pooled(tried, case)
        rises = _mean(after) > _mean(before) and not (after < before).any()
        found.append(
            {
                "largest_of": step,
                "kept": bool(rises),
                "predictions_changed": len(changed),
                "dice": [json_number(_mean(before)), json_number(_mean(after))],
                "dice_per_class": {
                    name: [json_number(before[place]), json_number(after[place])] for name, place in column.items()
                },
            }
        )
        if rises:
            kept, values, before = (*kept, step), tried, after
            now |= changed
    return Choice(kept, tuple(found))


def in_words(content: Mapping[str, Any]) -> str:
    """One line about the content of postprocess.json."""
    on = content["decided_on"]
    where = f"decided on {on['predictions']} predictions out of fold"
    if len(on["folds"]) < on["of_folds"]:
        where += f", of {len(on['folds'])} of {on['of_folds']} folds only"
    kept = [step for step in content["steps"] if step["kept"]]
    if not kept:
        return f"postprocessing: none; removing smaller components does not raise Dice ({where})"
    names = ", ".join(step["largest_of"] for step in kept)
    first, last = kept[0]["dice"][0], kept[-1]["dice"][1]
    return f"postprocessing: only the largest component of {names}; Dice {first:.4f} -> {last:.4f} ({where})"


def candidate_steps(components: LargestComponents) -> tuple[str, ...]:
    """All steps in order: the foreground, then each class or region; a lone class is all of the foreground."""
    parts = {name: part for name, part in components.parts.items() if name != FOREGROUND}
    return (FOREGROUND,) if len(parts) == 1 else (FOREGROUND, *parts)


def _pooled(values: FloatArray, case: NDArray[np.intp]) -> FloatArray:
    """Mean Dice (C,) over cases of predictions (n, C), each case by the mean of its repeats; NaN where none is."""
    of_cases = mean_of_repeats(values, case)
    pooled: FloatArray = mean_of_repeats(of_cases, np.zeros(len(of_cases), np.intp))[0]
    return pooled


def _mean(per_class: FloatArray) -> float:
    known = per_class[~np.isnan(per_class)]
    return float(known.mean()) if len(known) else float("nan")
