"""Writes the generated data set: one folder in Decathlon layout, complete or not there at all."""

from __future__ import annotations

import json
import shutil
import signal
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.data.phantom.anatomy import draw_anatomy
from pipeline.data.phantom.chest import uniform
from pipeline.data.phantom.scanner import scan
from pipeline.data.phantom.settings import GENERATOR_VERSION, PhantomSettings
from pipeline.errors import UserError

LABELS = {"0": "background", "1": "lung", "2": "tumour"}
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Scan:
    """One case to write: its patient (from 0), its number among the patient's scans (1 or 2), tumours or none."""

    patient: int
    number: int
    with_tumours: bool
    digits: int

    @property
    def case_id(self) -> str:
        """Name of the case, such as patient_007_scan_1."""
        return f"patient_{self.patient:0{self.digits}d}_scan_{self.number}"


def list_scans(settings: PhantomSettings) -> list[Scan]:
    """Return the scans of the data set in the order of their names.

    Who is scanned twice and who has no tumour follows two sequences that fill 0..1 evenly, so that any number of
    patients comes as close to the rates as it can, and more patients never change those before.
    """
    start = np.random.default_rng([settings.seed, 1]).uniform(size=2).tolist()
    digits = max(3, len(str(settings.patients - 1)))
    scans = []
    for patient in range(settings.patients):
        again = (start[0] + patient * 0.6180339887498949) % 1 < settings.second_scan_rate
        free = (start[1] + patient * 0.4142135623730951) % 1 < settings.tumour_free_rate
        scans += [Scan(patient, number, not free, digits) for number in range(1, 3 if again else 2)]
    return scans


def make_case(
    settings: PhantomSettings, case: Scan
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Return HU (i, j, k), labels (i, j, k) and the affine (4, 4) of one case: a function of its arguments only."""
    anatomy = draw_anatomy(np.random.default_rng([settings.seed, 2, case.patient]), settings, case.with_tumours)
    rng = np.random.default_rng([settings.seed, 3, case.patient, case.number])
    growth = uniform(rng, settings.growth) if case.number > 1 else 1.0
    return scan(rng, anatomy, settings, growth)


def write_phantom_lung(
    root: Path, settings: PhantomSettings, *, workers: int, report: Callable[[int, int], None] | None = None
) -> None:
    """Write the data set of ``settings`` to the folder ``root``, unless it is there already.

    Layout: dataset.json, settings.json, imagesTr/*.nii.gz (int16, HU), labelsTr/*.nii.gz (uint8: 0 background, 1 lung,
    2 tumour). The folder appears at once when all is written; where several processes write it at the same time, one
    set stays. The files do not depend on ``workers``, the number of processes. ``report`` gets the number of cases
    written and their total. Raises UserError if ``root`` holds anything else.
    """
    try:
        if _is_written(root, settings):
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with _folder_beside(root) as work:
            _write_all(work, settings, workers, report)
            try:
                work.rename(root)
            except OSError:
                # Another process may have finished the same set first.
                if not _is_written(root, settings):
                    raise
    except OSError as error:
        raise UserError(f"{root}: cannot be written ({error.strerror or error})", "Name another folder.") from error
    except BrokenProcessPool as error:
        raise UserError(
            f"{root}: a process that writes it died", "Is the memory full? Use fewer workers, or a coarser spacing_mm."
        ) from error


def _is_written(root: Path, settings: PhantomSettings) -> bool:
    """Return whether ``root`` holds this very set; raise UserError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{root}: is not empty and holds no generated data set", "Name another folder for data=phantom_lung."
        ) from None
    if found != _description(settings):
        raise UserError(
            f"{root}: holds a generated data set with other settings",
            "Name another folder for data=phantom_lung, or delete this one.",
        )
    return True


def _description(settings: PhantomSettings) -> dict[str, object]:
    return {"generator_version": GENERATOR_VERSION, "settings": settings.to_json()}


@contextmanager
def _folder_beside(root: Path) -> Iterator[Path]:
    """Make a folder on the file system of ``root``, and remove what is left of it."""
    work = root.parent / f".{root.name}.{uuid.uuid4().hex[:12]}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_all(work: Path, settings: PhantomSettings, workers: int, report: Callable[[int, int], None] | None) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (work / folder).mkdir()
    scans = list_scans(settings)
    with closing(_written(work, settings, scans, workers)) as written:
        for done, _ in enumerate(written, start=1):
            if report is not None:
                report(done, len(scans))
    dataset = {
        "name": "phantom_lung",
        "description": "Generated thorax CT with lungs and lung tumours",
        "licence": "CC0-1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": LABELS,
        "numTraining": len(scans),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{case.case_id}.nii.gz", "label": f"./labelsTr/{case.case_id}.nii.gz"}
            for case in scans
        ],
        "test": [],
    }
    (work / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
    (work / SETTINGS_FILE).write_text(json.dumps(_description(settings), indent=1) + "\n")


def _written(work: Path, settings: PhantomSettings, scans: list[Scan], workers: int) -> Generator[None, None, None]:
    """Write the cases and yield once for each."""
    workers = min(workers, len(scans))
    if workers <= 1:
        for case in scans:
            _write_case(work, settings, case)
            yield
        return
    # Spawned, not forked: the caller may run threads (torch, progress bars), and a fork would copy their locks.
    # Ctrl-C is for the caller alone, who then ends the pool.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=ignore)
    try:
        left = iter(scans)
        waiting = {pool.submit(_write_case, work, settings, case) for case in islice(left, 4 * workers)}
        while waiting:
            done, waiting = wait_for(waiting, return_when="FIRST_COMPLETED")
            for future in done:
                future.result()
                yield
            waiting |= {pool.submit(_write_case, work, settings, case) for case in islice(left, len(done))}
    finally:
        pool.shutdown(cancel_futures=True)


def _write_case(work: Path, settings: PhantomSettings, case: Scan) -> None:
    hu, labels, affine = make_case(settings, case)
    for folder, array in (("imagesTr", hu), ("labelsTr", labels)):
        image = nib.Nifti1Image(array, affine)
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        nib.save(image, work / folder / f"{case.case_id}.nii.gz")
