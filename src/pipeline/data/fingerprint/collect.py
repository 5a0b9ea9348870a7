"""The fingerprint of a data set: every case measured once, in parallel, then summed up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.data.case import Case, Dataset
from pipeline.data.fingerprint.measure import CaseMeasure, measure_case
from pipeline.data.fingerprint.memory import Memory
from pipeline.data.fingerprint.model import VERSION, Fingerprint, FingerprintSettings
from pipeline.data.fingerprint.summarise import summarise_group
from pipeline.data.parallel import in_order

MEASURE_VERSION = 1
"""Raised whenever a measurement of the same files would say something else."""

AXES = {  # by spatial dimensions and whether voxels have a size in mm
    (2, False): ("row", "column"),
    (2, True): ("x", "y"),
    (3, False): ("x", "y", "z"),
    (3, True): ("R", "A", "S"),
}


def fingerprint_dataset(
    dataset: Dataset,
    digests: Mapping[str, Mapping[str, str]],
    settings: FingerprintSettings | None = None,
    *,
    data_hash: str = "",
    workers: int = 2,
    cache: Path | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Measure every case and sum up, over all and per site.

    ``digests``: case id -> file -> SHA-256, as the integrity check found them; cases without are left out.
    ``cache``: folder where measurements are remembered by content, and the fingerprint is kept beside the preprocessed
    cases; ``report`` is called with (done, total). Raises UserError for a file that cannot be read.
    """
    settings = settings or FingerprintSettings()
    cases = [case for case in dataset.cases if case.case_id in digests]
    cases.sort(key=lambda case: case.case_id)  # the order of a table changes no digit of a sum
    drawn = settings.drawn(len(cases))
    folder = None if cache is None else cache / "fingerprint"
    keys = {case.case_id: _key(dataset, case, digests[case.case_id], settings, drawn) for case in cases}

    def measure(case: Case) -> CaseMeasure:
        place = int(keys[case.case_id][:15], 16)
        return measure_case(case, dataset.labels, settings, drawn=drawn, place=place)

    measured: dict[str, CaseMeasure] = {}
    with Memory(folder, dataset.root.name, str(dataset.root)) as memory:
        for case in cases:
            known = memory.recall(keys[case.case_id])
            if known is not None:
                measured[case.case_id] = known
        missing = [case for case in cases if case.case_id not in measured]
        for case, found in in_order(measure, missing, workers):
            measured[case.case_id] = found
            memory.keep(keys[case.case_id], found)
            if report is not None:
                report(len(measured), len(cases))
    fingerprint = summed_up(dataset, [(case, measured[case.case_id]) for case in cases], settings, data_hash)
    if folder is not None:
        write_fingerprint(folder / f"{dataset.root.name}_{_name(fingerprint)}.json", fingerprint)
    return fingerprint


def summed_up(
    dataset: Dataset,
    measured: Sequence[tuple[Case, CaseMeasure]],
    settings: FingerprintSettings,
    data_hash: str = "",
) -> Fingerprint:
    """The fingerprint of cases that are measured."""
    in_mm = any(grid.in_mm for _, case in measured for grid in case.grids.values())
    sites = sorted({case.site for case, _ in measured if case.site is not None})
    return Fingerprint(
        version=VERSION,
        name=dataset.name,
        task=dataset.task,
        spatial_dims=2 if dataset.spatial_dims == 2 else 3,
        unit="mm" if in_mm else "px",
        axes=AXES[2 if dataset.spatial_dims == 2 else 3, in_mm],
        data_hash=data_hash,
        settings=settings,
        overall=summarise_group(dataset, measured, settings),
        sites={
            site: summarise_group(dataset, [pair for pair in measured if pair[0].site == site], settings)
            for site in sites
        },
    )


def write_fingerprint(path: Path, fingerprint: Fingerprint) -> None:
    """Write fingerprint.json, whole or not at all."""
    from pipeline.json_file import write_json

    write_json(path, fingerprint.model_dump(mode="json"))


def _key(dataset: Dataset, case: Case, digests: Mapping[str, str], settings: FingerprintSettings, drawn: int) -> str:
    labels = dataset.labels if case.label is not None else None
    identity = {
        "version": MEASURE_VERSION,
        "files": list(digests.items()),
        "modalities": list(case.images),
        "labels": None if labels is None else [list(labels.values.items()), labels.regions, labels.ignore],
        "drawn": drawn,
        "seed": settings.seed,
        "connectivity": settings.connectivity,
    }
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _name(fingerprint: Fingerprint) -> str:
    """A short hash of the data and of how they were measured."""
    said = f"{fingerprint.data_hash}{fingerprint.settings.model_dump_json()}{fingerprint.task}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]
