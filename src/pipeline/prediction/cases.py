"""Predictions of the cases a fold did not train on, scored case by case on their native grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.data.case import Case, Labels
from pipeline.data.image_io import mask_name, stem_of, suffix_of, write_mask
from pipeline.data.labels import IGNORED
from pipeline.data.loading import network_image
from pipeline.data.modalities import reference_source
from pipeline.data.preprocessing import Prepared, read_label
from pipeline.errors import UserError, is_out_of_memory, one_line
from pipeline.evaluation.segmentation_metrics import segmentation_case_metrics
from pipeline.inference.decision import Decision
from pipeline.inference.native_grid import NativeGrid
from pipeline.inference.predictor import SlidingWindow, WholeImage, ensemble
from pipeline.prediction.background import InOrder

Networks = Sequence[Any]
Report = Callable[[int, int], None]
Mask = np.ndarray[Any, np.dtype[np.uint8]]
Affine = np.ndarray[Any, np.dtype[np.float64]]


def segment(
    networks: Networks,
    predictor: SlidingWindow,
    prepared: Prepared,
    decision: Decision,
    *,
    device: torch.device,
    bf16: bool,
) -> Mask:
    """Class indices of one case on its native grid: mean of the networks' probabilities, resampled, decided."""
    image = torch.from_numpy(network_image(prepared))
    grid = NativeGrid(prepared.affine, prepared.native_affine, prepared.shape, prepared.native_shape, decision)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        blocks = predictor.blocks(networks, image, decision.probabilities, device=device)
        return grid.fill(blocks, predictor.axis(prepared.shape))


def segment_cases(
    networks: Networks,
    predictor: SlidingWindow,
    cases: Sequence[Case],
    prepare: Callable[[Case], Prepared],
    labels: Labels,
    decision: Decision,
    *,
    modalities: Sequence[str],
    fold: int,
    tolerance_mm: float,
    folder: Path,
    device: torch.device,
    bf16: bool,
    report: Report | None = None,
) -> pd.DataFrame:
    """Predict, save under ``folder`` and score every case: one row per case and class or region that it annotates.

    A mask is written and scored while the next case is computed.
    """

    def finish(done: int, case: Case, affine: Affine, prediction: Mask) -> list[dict[str, Any]]:
        write_mask(folder / prediction_name(case), prediction, labels, reference_source(case, modalities))
        rows = score_segmentation(case, prediction, affine, labels, tolerance_mm, fold)
        if report is not None:
            report(done, len(cases))
        return rows

    with InOrder[list[dict[str, Any]]]() as background:
        for done, case in enumerate(cases, start=1):
            with memory_of(case.case_id):
                prepared = prepare(case)
                prediction = segment(networks, predictor, prepared, decision, device=device, bf16=bf16)
            background.submit(partial(finish, done, case, prepared.native_affine, prediction))
    return pd.DataFrame([row for rows in background.results for row in rows])


def score_segmentation(
    case: Case, prediction: Any, affine: Any, labels: Labels, tolerance_mm: float, fold: int | None
) -> list[dict[str, Any]]:
    """The rows of one case, of what it annotates; its mask is read from its file."""
    truth = read_label(case, labels).array[0]
    spacing = np.linalg.norm(affine[:3, : truth.ndim], axis=0)
    metrics = segmentation_case_metrics(
        prediction,
        truth,
        class_names=labels.names,
        spacing=spacing.tolist(),
        tolerance_mm=tolerance_mm,
        parts=scored_parts(case, labels),
        ignored=IGNORED if labels.ignore is not None else None,
    )
    return [{**identity(case, fold), **row} for row in metrics]


def scored_parts(case: Case, labels: Labels) -> dict[str, tuple[int, ...]]:
    """The classes or regions that the mask of a case annotates, with the class indices they consist of."""
    annotated = labels.parts if case.labels_present is None else case.labels_present
    return {name: part for name, part in labels.parts.items() if name in annotated}


def classify_cases(
    networks: Networks,
    predictor: WholeImage,
    cases: Sequence[Case],
    prepare: Callable[[Case], Prepared],
    class_names: Sequence[str],
    *,
    fold: int | None,
    batch: int,
    device: torch.device,
    bf16: bool,
    report: Report | None = None,
) -> pd.DataFrame:
    """Class probabilities of every case: one row per case, one column per class name."""
    rows: list[dict[str, Any]] = []
    for first in range(0, len(cases), batch):
        together = cases[first : first + batch]
        with memory_of(", ".join(case.case_id for case in together)):
            image = torch.from_numpy(np.stack([network_image(prepare(case)) for case in together])).to(device)
            probabilities = ensemble(networks, predictor, image, bf16=bf16).cpu().numpy().astype(np.float64)
        for case, chances in zip(together, probabilities, strict=True):
            best = class_names[int(chances.argmax())]
            row = {**identity(case, fold), "target": case.target, "predicted": best}
            rows.append(row | dict(zip(class_names, chances.tolist(), strict=True)))
        if report is not None:
            report(min(first + batch, len(cases)), len(cases))
    return pd.DataFrame(rows)


@contextmanager
def memory_of(cases: str) -> Iterator[None]:
    """A lack of memory inside becomes a UserError that names the cases."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{cases}: out of memory while predicting: {one_line(str(error))}",
            "set inference.memory_gb, a smaller sampling.patch_size, or trainer.precision=bf16",
        ) from error


def identity(case: Case, fold: int | None) -> dict[str, Any]:
    """What every row of cases.csv begins with."""
    return {"case_id": case.case_id, "patient_id": case.patient_id, "fold": fold, "site": case.site}


def prediction_name(case: Case) -> str:
    """File name of a case's predicted mask: the case, with the suffix masks of its image get."""
    name = mask_name(next(iter(case.images.values())))
    return case.case_id + suffix_of(Path(name)) if stem_of(Path(name)) != case.case_id else name
