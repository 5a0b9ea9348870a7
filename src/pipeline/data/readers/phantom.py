"""The generated thorax CTs, written once and then read as any Decathlon folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.data.case import Dataset, TaskKind
from pipeline.data.readers.decathlon import read_decathlon
from pipeline.errors import UserError


def read_phantom(
    *,
    name: str | None = None,
    root: str | Path | None = None,
    task_kind: TaskKind = "segmentation",
    labels: Mapping[Any, str] | None = None,
    spatial_dims: int | None = None,
    patient_pattern: str | None = r"^(patient_\d+)",
    phantom: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The generated data set with the settings ``phantom`` (see PhantomSettings).

    ``root``: where it is written unless it is there; None: a folder of ``cache`` named after the settings.
    ``report`` gets the number of cases written and their total. Raises UserError.
    """
    from pipeline.data.phantom import PhantomSettings, write_phantom_lung
    from pipeline.data.phantom.settings import GENERATOR_VERSION

    settings = PhantomSettings(**(phantom or {}))
    if root is not None:
        folder = Path(root).expanduser().absolute()
    elif cache is not None:
        said = json.dumps([GENERATOR_VERSION, settings.to_json()], sort_keys=True)
        folder = cache / "phantom_lung" / hashlib.sha256(said.encode()).hexdigest()[:16]
    else:
        raise UserError("data.root is not set", "name the folder to write the generated data to: data.root=FOLDER")
    write_phantom_lung(folder, settings, workers=workers, report=report)
    return read_decathlon(
        name=name or "phantom_lung",
        root=folder,
        task_kind=task_kind,
        labels=labels,
        spatial_dims=spatial_dims,
        patient_pattern=patient_pattern,
    )
