"""Predict a file or a folder with a trained run, and score it where the truth is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.data.case import Case, FileSource
from pipeline.data.fingerprint import DriftSettings
from pipeline.data.image_io import write_mask
from pipeline.data.modalities import reference_source
from pipeline.errors import UserError
from pipeline.evaluation.summary import summarise
from pipeline.json_file import write_json
from pipeline.prediction.background import InOrder
from pipeline.prediction.cases import Affine, Mask, classify_cases, score_segmentation, segment
from pipeline.prediction.drift import warn_of_drift
from pipeline.prediction.inputs import input_cases, output_name
from pipeline.prediction.trained_run import TrainedRun

SUMMARY_FILE = "summary.json"  # what a run writes at its end
Report = Callable[[int, int], None]


def predict_segmentation(
    run: TrainedRun, cases: Sequence[Case], output: Path, *, truths: Mapping[str, Path] | None, report: Report
) -> pd.DataFrame:
    """Write one mask per case under its image's file name; with ``truths`` (by file name) also score them.

    A mask is written while the next case is computed. Returns the score rows, empty without truths.
    """
    assert run.labels is not None
    labels, tolerance = run.labels, float(run.config["evaluation"]["tolerance_mm"])

    def finish(done: int, case: Case, affine: Affine, prediction: Mask) -> list[dict[str, Any]]:
        name, rows = output_name(case, run), []
        if run.postprocessing is not None:
            prediction = run.postprocessing(prediction)
        write_mask(output / name, prediction, labels, reference_source(case, run.card.modalities))
        if truths is not None:
            known = Case(case.case_id, case.patient_id, case.images, FileSource(truths[name]))
            rows = score_segmentation(known, prediction, affine, labels, tolerance, 0)
        report(done, len(cases))
        return rows

    with InOrder[list[dict[str, Any]]]() as background:
        for done, case in enumerate(cases, start=1):
            prepared = run.preprocessing(case, with_label=False)
            prediction = segment(
                run.networks, run.predictor, prepared, run.decision, device=run.device, bf16=run.card.bf16
            )
            background.submit(partial(finish, done, case, prepared.native_affine, prediction))
    return pd.DataFrame([row for rows in background.results for row in rows])


def predict_classification(
    run: TrainedRun, cases: Sequence[Case], output: Path, *, batch: int, report: Report
) -> pd.DataFrame:
    """Write predictions.csv: ``file`` and one probability column per class name. Returns the rows of all cases."""
    table = classify_cases(
        run.networks,
        run.predictor,
        cases,
        lambda case: run.preprocessing(case, with_label=False),
        run.card.class_names,
        fold=0,
        batch=batch,
        device=run.device,
        bf16=run.card.bf16,
        report=report,
    )
    table.insert(0, "file", [next(iter(case.images.values())).path.name for case in cases])
    table[["file", *run.card.class_names]].to_csv(output / "predictions.csv", index=False)
    return table


def matching_masks(cases: Sequence[Case], folder: Path, run: TrainedRun) -> dict[str, Path]:
    """The mask of every case: the file in ``folder`` of the name that its prediction gets. Names all that are missing.

    In a run of one modality that is the image's own name.
    """
    if not folder.is_dir():
        raise UserError(f"labels={folder}: no such folder")
    names = [output_name(case, run) for case in cases]
    found = {name: folder / name for name in names if (folder / name).is_file()}
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"labels={folder}: no mask for {len(missing)} images: {', '.join(missing[:5])}")
    return found


def targets_of(table: pd.DataFrame, source: Path, class_names: Sequence[str]) -> pd.DataFrame:
    """The rows of ``table`` with the target that a CSV with the columns ``file`` and ``target`` gives them."""
    try:
        given = pd.read_csv(source, dtype=str)
    except (OSError, ValueError) as error:
        raise UserError(f"labels={source}: not a readable CSV: {error}", "columns: file,target") from error
    if not {"file", "target"} <= set(given.columns):
        raise UserError(f"labels={source}: has the columns {', '.join(given.columns)}", "it needs file and target")
    target_of = dict(zip(given["file"], given["target"], strict=True))
    unknown = sorted(set(given["target"]) - set(class_names))
    if unknown:
        raise UserError(f"labels={source}: targets {', '.join(map(str, unknown))} are none of {', '.join(class_names)}")
    missing = [file for file in table["file"] if file not in target_of]
    if missing:
        raise UserError(f"labels={source}: no target for {', '.join(missing[:5])}")
    return table.assign(target=table["file"].map(target_of))


def scores(run: TrainedRun, table: pd.DataFrame) -> dict[str, Any]:
    """The ``metrics`` block of scores.json, in the form of summary.json; every input is its own patient."""
    how = run.config["evaluation"]
    return summarise(
        run.card.task, table, run.card.class_names, folds=[0], resamples=int(how["resamples"]), seed=int(how["seed"])
    )


def predict(
    folder: Path,
    source: Path,
    output: Path,
    *,
    labels: Path | None,
    folds: Sequence[int] | None,
    checkpoint: str | None,
    postprocess: bool,
    memory_gb: float | None,
    batch: int,
    drift: DriftSettings,
    trusted: Sequence[str],
    console: Console,
) -> None:
    """Predict ``source`` (an image or a folder) with the run in ``folder`` and write into ``output``.

    Segmentation: one mask per image, with the run's postprocessing unless ``postprocess`` is false. Classification:
    predictions.csv. With ``labels`` also scores.json. Everything that can be wrong with the inputs is found before the
    first prediction. ``memory_gb``: in place of the run's, see SlidingWindow.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = TrainedRun(
        folder,
        folds=folds,
        checkpoint=checkpoint,
        postprocess=postprocess,
        memory_gb=memory_gb,
        trust=trusted,
        device=device,
    )
    if not (folder / SUMMARY_FILE).exists():
        said = f"warning: {folder} has no {SUMMARY_FILE}: its training did not end, or not yet"
        console.print(f"{said}; its networks predict as they were last saved", highlight=False, soft_wrap=True)
    cases = input_cases(source, run)
    segmentation = run.card.task == "segmentation"
    truths = matching_masks(cases, labels, run) if labels is not None and segmentation else None
    output.mkdir(parents=True, exist_ok=True)
    warn_of_drift(run.folder, cases, output, drift, console)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("predicting", total=len(cases))

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if segmentation:
            table = predict_segmentation(run, cases, output, truths=truths, report=report)
        else:
            table = predict_classification(run, cases, output, batch=batch, report=report)
            if labels is not None:
                table = targets_of(table, labels, run.card.class_names)
    said = f"{len(cases)} images predicted by {len(run.networks)} network(s): {output}"
    console.print(said, highlight=False, soft_wrap=True)
    if labels is not None:
        block = scores(run, table)
        write_json(output / "scores.json", {"n_cases": len(cases), **block})
        console.print(f"Scores: {output / 'scores.json'}", highlight=False, soft_wrap=True)
