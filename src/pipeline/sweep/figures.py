"""Pictures of a sweep: the trials in their order, what the drawn settings matter, two objectives against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.evaluation.figures import COLOURS, new_figure, quiet, save
from pipeline.evaluation.report import LABELS
from pipeline.sweep.objectives import Objective

Trial = tuple[int, str, Sequence[float]]  # number, state, scores (of a pruned one its last value, if any)


def label_of(objective: Objective) -> str:
    """An objective for people."""
    names = {"seconds": "Training time (s)", "parameters": "Trained weights"}
    return names.get(objective.metric) or LABELS.get(objective.metric, objective.metric)


def history_figure(trials: Sequence[Trial], objectives: Sequence[Objective], path: Path) -> None:
    """Draw each objective over the trials, with the best so far as a line."""
    figure = new_figure(4.4 * len(objectives), 3.0)
    panels = figure.subplots(1, len(objectives), squeeze=False)[0]
    for index, (panel, objective) in enumerate(zip(panels, objectives, strict=True)):
        for state, marker, colour in (("COMPLETE", "o", COLOURS[0]), ("PRUNED", "x", "0.6")):
            shown = [(number, scores[index]) for number, found, scores in trials if found == state and scores]
            if shown:
                numbers, values = zip(*shown, strict=True)
                panel.plot(numbers, values, marker, color=colour, ms=4, mfc="none", label=state.lower())
        done = [(number, scores[index]) for number, state, scores in trials if state == "COMPLETE"]
        if done:
            numbers, values = zip(*done, strict=True)
            best = np.maximum.accumulate(values) if objective.direction == "maximize" else np.minimum.accumulate(values)
            panel.step(
                [*numbers, trials[-1][0]],
                [*best, best[-1]],
                where="post",
                color=COLOURS[5],
                lw=1.4,
                label="best so far",
            )
        panel.set_xlabel("Trial")
        panel.set_ylabel(label_of(objective))
        panel.xaxis.get_major_locator().set_params(integer=True)
        quiet(panel)
    panels[0].legend(frameon=False, fontsize=7)
    save(figure, path)


def importance_figure(importances: Mapping[str, float], objective: Objective, path: Path) -> None:
    """Draw the share of the objective's variance that each setting explains, the largest on top."""
    ordered = sorted(importances.items(), key=lambda pair: pair[1])
    figure = new_figure(5.2, 0.9 + 0.32 * len(ordered))
    panel = figure.subplots()
    names, shares = zip(*ordered, strict=True)
    bars = panel.barh(range(len(names)), shares, color=COLOURS[0], height=0.6)
    panel.bar_label(bars, [f"{share:.2f}" for share in shares], padding=3, fontsize=8)
    panel.set_yticks(range(len(names)), names)
    panel.set_xlim(0, max(1.0, max(shares)) * 1.08)
    panel.set_xlabel(f"Share of the variance of {label_of(objective)} (fANOVA)")
    quiet(panel)
    panel.grid(visible=False, axis="y")
    save(figure, path)


def pareto_figure(
    trials: Sequence[Trial], best: Sequence[int], objectives: tuple[Objective, Objective], path: Path
) -> None:
    """Draw two objectives against each other; ``best``: numbers of the trials that no other betters in both."""
    figure = new_figure(4.4, 3.4)
    panel = figure.subplots()
    done = [(number, scores) for number, state, scores in trials if state == "COMPLETE"]
    for group, colour, label in ((False, "0.6", "others"), (True, COLOURS[5], "none is better in both")):
        shown = [scores for number, scores in done if (number in best) == group]
        if shown:
            panel.scatter([s[0] for s in shown], [s[1] for s in shown], s=24, color=colour, label=label)
    for number, scores in done:
        if number in best:
            panel.annotate(str(number), (scores[0], scores[1]), xytext=(4, 3), textcoords="offset points", fontsize=7)
    panel.set_xlabel(label_of(objectives[0]))
    panel.set_ylabel(label_of(objectives[1]))
    panel.legend(frameon=False, fontsize=7)
    quiet(panel)
    save(figure, path)
