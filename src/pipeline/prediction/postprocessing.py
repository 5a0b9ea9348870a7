"""The postprocessing of a run: decided on its predictions out of fold, applied to them and to new predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.data.case import Case, FileSource, Labels
from pipeline.data.fingerprint.model import Connectivity
from pipeline.data.image_io import read_header, read_mask, write_mask
from pipeline.data.modalities import reference_source
from pipeline.data.parallel import in_order
from pipeline.data.preprocessing import read_label
from pipeline.errors import UserError
from pipeline.evaluation.components import LargestComponents, Overlaps
from pipeline.evaluation.postprocessing import RULE, Prediction, Studied, candidate_steps, choose
from pipeline.json_file import write_json
from pipeline.prediction.cases import score_segmentation, scored_parts

POSTPROCESS_FILE = "postprocess.json"
RAW_FOLDER = "predictions_raw"  # beside the predictions of a fold: those that postprocessing changed, as they were


class Postprocessing:
    """Keeps the largest components that a run decided on; ``steps`` empty: changes nothing."""

    def __init__(self, components: LargestComponents, steps: Sequence[str]) -> None:
        self.components = components
        self.steps = tuple(steps)

    def __call__(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask (*spatial) of class indices without what is removed."""
        return self.components(mask, self.steps)

    @classmethod
    def read(cls, path: Path, labels: Labels) -> Postprocessing:
        """What postprocess.json says; nothing where there is no such file. Raises UserError for a broken one."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            components = LargestComponents(labels, content["connectivity"])
            steps = [str(step) for step in content["kept"]]
            unknown = [step for step in steps if step not in components.parts]
        except FileNotFoundError:
            return cls(LargestComponents(labels, "corners"), ())
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not readable: {error!r}", "predict without it: postprocess=false") from error
        if unknown:
            raise UserError(f"{path}: the run has no class {unknown[0]}", "predict without it: postprocess=false")
        return cls(components, steps)


def postprocess_run(
    table: pd.DataFrame,
    predictions: Mapping[Prediction, Path],
    cases: Mapping[str, Case],
    labels: Labels,
    *,
    connectivity: Connectivity,
    tolerance_mm: float,
    modalities: Sequence[str],
    of_folds: int,
    workers: int,
    output: Path,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Decide, write postprocess.json into ``output``, apply it to the ``predictions`` that it changes.

    ``table``: the scores of all predictions, whose files are named by (fold, case). Gives the table with those scored
    again that changed, and the content of postprocess.json. What an earlier call changed is put back first. Only
    predictions with several components are compared with their truth again.
    """
    for path in predictions.values():  # of a run that was interrupted here
        raw = path.parent.with_name(RAW_FOLDER) / path.name
        if raw.exists():
            raw.replace(path)
    components = LargestComponents(labels, connectivity)
    look = partial(_study, components, cases, labels)
    found = in_order(look, predictions.items(), workers)
    studied = {key: study for (key, _), study in found if study is not None}
    choice = choose(table, studied, components, candidate_steps(components))
    content: dict[str, Any] = {
        "rule": RULE,
        "kept": list(choice.kept),
        "connectivity": connectivity,
        "decided_on": {
            "folds": sorted({fold for fold, _ in predictions}),
            "of_folds": of_folds,
            "cases": len({case_id for _, case_id in predictions}),
            "predictions": len(predictions),
            "with_several_components": len(studied),
        },
        "steps": list(choice.steps),
    }
    write_json(output / POSTPROCESS_FILE, content)
    apply = Postprocessing(components, choice.kept)
    changed = [
        key
        for key, study in studied.items()
        if not np.array_equal(components.after(study.pieces, choice.kept), study.pieces.index)
    ]

    def rescore(key: Prediction) -> list[dict[str, Any]]:
        case, path = cases[key[1]], predictions[key]
        mask = apply(_read(path, labels))
        raw = path.parent.with_name(RAW_FOLDER) / path.name
        raw.parent.mkdir(exist_ok=True)
        partial_copy = raw.with_name(f".{raw.name}")
        shutil.copy2(path, partial_copy)
        partial_copy.replace(raw)
        source = reference_source(case, modalities)
        write_mask(path, mask, labels, source)
        return score_segmentation(case, mask, read_header(source).affine, labels, tolerance_mm, key[0])

    table = table.copy()
    for (fold, case_id), rows in in_order(rescore, changed, workers):
        place = table.index[(table["fold"] == fold) & (table["case_id"] == case_id)]
        scores = pd.DataFrame(rows)
        assert list(scores["class"]) == list(table.loc[place, "class"])
        for name in scores.columns.drop(["case_id", "patient_id", "fold", "site", "class"]):
            table.loc[place, name] = scores[name].to_numpy()
    return table, content


def _study(
    components: LargestComponents, cases: Mapping[str, Case], labels: Labels, prediction: tuple[Prediction, Path]
) -> Studied | None:
    """What is to be known of a prediction, None where it has no part of several components."""
    (_, case_id), path = prediction
    cut = components.cut(_read(path, labels))
    if cut is None or not cut.pieces.several:
        return None
    case = cases[case_id]
    truth = read_label(case, labels).array[0]
    return Studied(cut.pieces, Overlaps(cut, truth), scored_parts(case, labels))


def _read(path: Path, labels: Labels) -> NDArray[np.uint8]:
    indices: NDArray[np.uint8] = labels.to_index(read_mask(FileSource(path)).array)[0]
    return indices
