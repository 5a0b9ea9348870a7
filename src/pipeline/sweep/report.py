"""What a sweep has found: table, best settings, pictures, and by how much its best score flatters."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.evaluation.cases import CASES_FILE, read_cases
from pipeline.evaluation.optimism import Optimism, score_of_cases, selection_optimism
from pipeline.json_file import read_json, write_json
from pipeline.sweep.best import write_best
from pipeline.sweep.counts import counts_of
from pipeline.sweep.figures import history_figure, importance_figure, label_of, pareto_figure
from pipeline.sweep.folder import Begun, SweepFolder
from pipeline.sweep.objectives import Objective
from pipeline.sweep.parameters import short
from pipeline.sweep.study import storage_errors
from pipeline.sweep.tracked import end_run
from pipeline.training.run_folder import SUMMARY_FILE

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipeline.sweep.run import Plan

TRIALS_FILE = "trials.csv"
REPORT_FILE = "report.json"
BEST_FOLDER = "best"  # for --config-dir
SHOWN = 20  # trials in the terminal
FEWEST_FOR_IMPORTANCE = 4  # completed trials


def report_sweep(
    plan: Plan, folder: SweepFolder, begun: Begun, console: Console, *, tracked: bool, nested: bool = False
) -> None:
    """Write and print everything; ``tracked``: also to MLflow, as the end of the sweep's run.

    ``nested``: the sweep chooses for a fold that scores it afterwards.
    """
    with storage_errors(plan.address(folder)), folder.one_at_a_time("report"):
        study = plan.study(folder, begun)
        trials = study.get_trials(deepcopy=False)
        best = best_of(study)
        files = {write_table(plan, trials, folder.path / TRIALS_FILE): ""}
        files |= dict.fromkeys(draw(plan, study, trials, best, folder.path / "figures"), "figures")
        optimism = optimism_of(plan, folder, trials) if len(plan.objectives) == 1 else None
        commands = []
        for trial in best:
            name = "best" if len(best) == 1 else f"best_{trial.number:04d}"
            path = folder.path / BEST_FOLDER / "experiment" / f"{name}.yaml"
            commands.append(write_best(plan, trial.params, path, said=_said(plan, trial, folder)))
            files[path] = ""
        counts = counts_of(trials)
        content: dict[str, Any] = {
            "objectives": [asdict(objective) for objective in plan.objectives],
            "trials": asdict(counts),
            "best": [{"number": t.number, "scores": list(t.values), "values": t.params} for t in best],
            "optimism": None if optimism is None else {**asdict(optimism), "amount": optimism.amount},
        }
        write_json(folder.path / REPORT_FILE, content)
        files[folder.path / REPORT_FILE] = ""
    tell_trials(plan, trials, best, console)
    for line in lines_of(plan, best, optimism, commands, nested=nested):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Results: {folder.path}", highlight=False, soft_wrap=True)
    if tracked:
        names = [objective.metric for objective in plan.objectives]
        scores = {t.number: dict(zip(names, t.values, strict=True)) for t in trials if t.state.name == "COMPLETE"}
        first = {f"best_{name}": value for name, value in zip(names, best[0].values, strict=True)} if best else {}
        first |= {"best_honest": optimism.honest} if optimism is not None else {}
        end_run(plan.settings, folder, "FINISHED" if best else "FAILED", scores=scores, best=first, files=files)


def best_of(study: Study) -> list[FrozenTrial]:
    """The best trial, or with several objectives those that no other betters in all; none where none is complete."""
    if not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        return []
    return list(study.best_trials) if len(study.directions) > 1 else [study.best_trial]


def write_table(plan: Plan, trials: Sequence[FrozenTrial], path: Path) -> Path:
    """One row per trial: state, scores, drawn values, seconds from its begin to its end, why it failed or was ended."""
    scores = [objective.metric for objective in plan.objectives]
    names = [parameter.name for parameter in plan.space.parameters]
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["trial", "state", *scores, *names, "seconds", "reason"], extrasaction="ignore")
        writer.writeheader()
        for trial in trials:
            values = trial.values if trial.state.name == "COMPLETE" else []
            row = {"trial": trial.number, "state": trial.state.name.lower(), "reason": trial.user_attrs.get("reason")}
            row |= {"seconds": round(trial.duration.total_seconds(), 1) if trial.duration is not None else None}
            writer.writerow(row | trial.params | dict(zip(scores, values, strict=False)))
    partial.replace(path)
    return path


def draw(
    plan: Plan, study: Study, trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], folder: Path
) -> list[Path]:
    """Leave the pictures in a folder; their paths."""
    shown = [
        (trial.number, trial.state.name, trial.values or ([] if trial.last_step is None else [_last_value(trial)]))
        for trial in trials
        if trial.state.is_finished()
    ]
    if not best:
        return []
    made = [folder / "history.png"]
    history_figure(shown, plan.objectives, made[0])
    for index, objective in enumerate(plan.objectives):
        importances = importances_of(study, index, objective)
        if importances:
            made.append(folder / f"importance_{objective.metric}.png")
            importance_figure(importances, objective, made[-1])
    if len(plan.objectives) == 2:
        made.append(folder / "pareto.png")
        numbers = [trial.number for trial in best]
        pareto_figure(shown, numbers, (plan.objectives[0], plan.objectives[1]), made[-1])
    return made


def importances_of(study: Study, index: int, objective: Objective) -> dict[str, float]:
    """Share of each setting in the variance of an objective; of those that every completed trial drew.

    Functional ANOVA: Hutter, Hoos and Leyton-Brown, ICML 2014.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    varies = len({trial.values[index] for trial in done}) > 1
    common = set.intersection(*(set(trial.params) for trial in done)) if done else set()
    drawn = [name for name in common if len({trial.params[name] for trial in done}) > 1]
    if len(done) < FEWEST_FOR_IMPORTANCE or not varies or not drawn:
        return {}
    evaluator = FanovaImportanceEvaluator(seed=0)
    return dict(
        get_param_importances(study, evaluator=evaluator, params=sorted(drawn), target=lambda t: t.values[index])
    )


def optimism_of(plan: Plan, folder: SweepFolder, trials: Sequence[FrozenTrial]) -> Optimism | None:
    """Estimated from the case tables of the completed trials, where they scored the same cases."""
    objective = plan.objectives[0]
    if objective.is_cost:
        return None
    scores, known = [], None
    for trial in trials:
        path = folder.trial(trial.number)
        if trial.state.name != "COMPLETE" or not (path / CASES_FILE).is_file():
            continue
        matrix = read_json(path / SUMMARY_FILE).get("confusion_matrix", {})
        table = read_cases(path / CASES_FILE)
        patients, score = score_of_cases(plan.settings.task, table, objective.metric, matrix.get("classes", ()))
        if known is not None and patients != known:
            return None
        known = patients
        scores.append(score)
    if known is None or len(scores) < 2:
        return None
    return selection_optimism(
        known,
        scores,
        maximise=objective.direction == "maximize",
        resamples=plan.settings.sweep.resamples,
        seed=plan.settings.evaluation.seed,
    )


def tell_trials(plan: Plan, trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], console: Console) -> None:
    """Print the trials, the best first; of many the first only."""
    counts = counts_of(trials)
    title = f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
    title += f", {counts.running} under way" if counts.running else ""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for heading in ("trial", "state", *(label_of(objective) for objective in plan.objectives), "settings", ""):
        table.add_column(
            Text(heading), justify="left" if heading in ("state", "settings", "") else "right", overflow="fold"
        )
    front = [trial.number for trial in best]
    sign = -1 if plan.objectives[0].direction == "maximize" else 1

    def order(trial: FrozenTrial) -> tuple[bool, bool, float, int]:
        complete = trial.state.name == "COMPLETE"
        return (trial.number not in front, not complete, sign * trial.values[0] if complete else 0.0, trial.number)

    for trial in sorted(trials, key=order)[:SHOWN]:
        complete = trial.state.name == "COMPLETE"
        values = [f"{value:.4g}" for value in trial.values] if complete else ["-"] * len(plan.objectives)
        state, reason = trial.state.name.lower(), trial.user_attrs.get("reason", "")
        table.add_row(str(trial.number), state, *values, Text(short(trial.params)), Text(reason, style="dim"))
    console.print(table)
    if len(trials) > SHOWN:
        console.print(f"... and {len(trials) - SHOWN} more, all of them in {TRIALS_FILE}", highlight=False)


def lines_of(
    plan: Plan,
    best: Sequence[FrozenTrial],
    optimism: Optimism | None,
    commands: Sequence[str],
    *,
    nested: bool,
) -> list[str]:
    """What a reader of the table has to know."""
    if not best:
        return ["No trial came to its end: there is no best."]
    lines = [
        "The best trial's score is optimistic: the cases that it was computed on chose that trial."
        if len(best) == 1
        else "The scores of these trials are optimistic: the cases that they were computed on chose them."
    ]
    if optimism is not None:
        low, high = optimism.ci95
        lines.append(
            f"Choosing by {plan.objectives[0].metric} flatters by about {optimism.amount:.3f}: on other patients "
            f"expect {optimism.honest:.3f} [{low:.3f}, {high:.3f}] instead of {optimism.best:.3f} "
            "(bootstrap over patients of the choice, Tsamardinos et al. 2018)."
        )
    if not nested:
        lines.append("An estimate that no choice has touched: folds=nested folds.inner=4.")
    return [*lines, *(f"Train with it: {command}" for command in commands)]


def _said(plan: Plan, trial: FrozenTrial, folder: SweepFolder) -> str:
    scores = zip(plan.objectives, trial.values, strict=True)
    reached = ", ".join(f"{objective.metric} {value:.4g}" for objective, value in scores)
    return f"Trial {trial.number} of the sweep {folder.path.name}, {reached}"


def _last_value(trial: FrozenTrial) -> float:
    assert trial.last_step is not None
    return float(trial.intermediate_values[trial.last_step])
