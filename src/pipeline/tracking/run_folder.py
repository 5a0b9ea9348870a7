"""From an MLflow run id back to a run folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.tracking.journal import EVENTS_FILE, TRACKING_FOLDER
from pipeline.tracking.mlflow_store import OUTPUT_TAG, PARENT_TAG, RUN_KEY_TAG, MlflowStore, reason
from pipeline.tracking.names import check_run_key
from pipeline.tracking.secrets import mask

_NEEDED_FOLDERS = ("checkpoints",)


def find_run_folder(run_id: str, uri: str) -> Path:
    """The folder of the cross-validation that a run (parent or fold) belongs to.

    The folder it was written in where that is still here; else a temporary one, removed when the program ends,
    with the files at the top of the runs' artifacts and their checkpoints, laid out like a run folder.
    Raises ``UserError`` when there is no such run, or its artifacts cannot be read.
    """
    try:
        store = MlflowStore(uri)
        run = store.run(run_id)
        if run is not None and PARENT_TAG in run.data.tags:
            parent = store.run(run.data.tags[PARENT_TAG])
            if parent is not None and parent.data.tags.get(OUTPUT_TAG) == run.data.tags.get(OUTPUT_TAG):
                run = parent  # a fold; the parent of a trial has a folder of its own
        if run is None or RUN_KEY_TAG not in run.data.tags:
            raise UserError(
                f"no run {run_id!r} of this program in the MLflow store {mask(uri)}",
                "Give the run's folder, or the id that its MLflow page shows.",
                "Or name the store that has it: tracking.uri=...",
            )
        return _folder_here(run) or _download(store, run)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"run {run_id} cannot be read from MLflow at {mask(uri)} ({reason(error)})",
            "Give the run's folder instead.",
        ) from error


def _folder_here(run: Any) -> Path | None:
    folder = Path(run.data.tags.get(OUTPUT_TAG, ""))
    identity = run.data.tags[RUN_KEY_TAG].partition("/")[0]
    try:
        with (folder / TRACKING_FOLDER / EVENTS_FILE).open("rb") as journal:
            same = identity.encode() in journal.readline()
    except OSError:
        return None
    return folder if same else None


def _download(store: MlflowStore, parent: Any) -> Path:
    target = Path(tempfile.mkdtemp(prefix="run_"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    _download_run(store, parent, target)
    for child in store.runs_with_tag(parent.info.experiment_id, PARENT_TAG, parent.info.run_id):
        if child.info.lifecycle_stage == "active" and RUN_KEY_TAG in child.data.tags:
            folder = target / check_run_key(child.data.tags[RUN_KEY_TAG].partition("/")[2])
            folder.mkdir(parents=True)
            _download_run(store, child, folder)
    return target


def _download_run(store: MlflowStore, run: Any, target: Path) -> None:
    for artifact in store.artifacts(run.info.run_id):
        if not artifact.is_dir or artifact.path in _NEEDED_FOLDERS:
            if not (target / artifact.path).resolve().is_relative_to(target.resolve()):
                raise UserError(f"run {run.info.run_id}: artifact {artifact.path!r} leads out of its folder")
            store.download(run.info.run_id, artifact.path, target)
