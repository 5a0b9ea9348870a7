"""One MLflow store, spoken to through ``MlflowClient`` only; every call here may block, none is repeated inside."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.tracking.names import PARAM_LENGTH, TAG_LENGTH, shortened
from pipeline.tracking.secrets import mask
from pipeline.tracking.sqlite_store import alone, check_sqlite, create
from pipeline.tracking.uri import sqlite_file

RUN_KEY_TAG = "pipeline.run_key"
OUTPUT_TAG = "pipeline.output"
PARENT_TAG = "mlflow.parentRunId"
METRICS_PER_CALL = 1000
# At 6,000 characters of six bytes each, twenty values stay below the server's limit of 1 MB a request.
VALUES_PER_CALL = 20

# (name, value, time in ms since 1970, step)
Point = tuple[str, float, int, int]

log = logging.getLogger(__name__)

_SETTINGS = {
    # A repeated "create run" could create two: the sender looks for the first before it tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
CREDENTIALS = "Credentials: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
_REFUSED_UPLOADS = (400, 404, 405, 413, 415)

# A process forked while another thread imports would keep that module's import lock for ever.
_importing = threading.RLock()
_FORK_WAIT_S = 20.0
_fork = threading.local()


def _before_fork() -> None:
    _fork.waited = _importing.acquire(timeout=_FORK_WAIT_S)


def _after_fork() -> None:
    if _fork.waited:
        _importing.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class MlflowStore:
    """A connection to the store at ``uri``. A new sqlite file is created here, which takes some seconds."""

    def __init__(self, uri: str) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        self.file = sqlite_file(uri)
        if self.file is not None:
            check_sqlite(self.file)
        with alone(self.file), _importing:
            logging.getLogger("alembic").setLevel(logging.WARNING)
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            if self.file is not None and not self.file.exists():
                create(self.file, MlflowClient)
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            if self.file is not None:
                self._client.get_experiment_by_name("Default")  # opens the file, which makes newer tables

    def experiment(self, name: str, artifacts: str | None = None) -> str:
        """The id of the experiment of this name, created when missing, restored when deleted.

        A new one keeps its artifacts in a folder of its own below ``artifacts``; None: where the store keeps them.
        """
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None
            if artifacts is None and self.file is not None:
                artifacts = (self.file.parent / "mlartifacts").as_uri()
            if artifacts is not None:
                location = f"{artifacts.rstrip('/')}/{_folder_name(name)}"
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
                assert found is not None
        if artifacts is not None and not found.artifact_location.startswith(artifacts):
            log.warning(
                "experiment %s is there already, and keeps its artifacts in %s, not in %s",
                name,
                mask(found.artifact_location),
                artifacts,
            )
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def has_run(self, run_id: str) -> bool:
        """False when the store has no run of this id."""
        return self.run(run_id) is not None

    def run(self, run_id: str) -> Any | None:
        """The MLflow run, None when there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def runs_with_tag(self, experiment_id: str, tag: str, value: str) -> list[Any]:
        """All runs of the experiment that carry the tag, deleted ones too."""
        from mlflow.entities import ViewType

        return list(
            self._client.search_runs(
                [experiment_id], f"tags.`{tag}` = '{value}'", run_view_type=ViewType.ALL, max_results=1000
            )
        )

    def find_run(self, experiment_id: str, unique_key: str) -> Any | None:
        """The run with this key, None when there is none; of several the one that is kept."""
        found = self.runs_with_tag(experiment_id, RUN_KEY_TAG, unique_key)
        return min(found, key=lambda run: (run.info.lifecycle_stage == "deleted", run.info.run_id), default=None)

    def start_run(self, experiment_id: str, unique_key: str, name: str, time_ms: int, tags: Mapping[str, str]) -> str:
        """The id of the run with this key: created once, or found and set running again."""
        run = self.find_run(experiment_id, unique_key)
        if run is None:
            tags = {**_short_tags(tags), RUN_KEY_TAG: unique_key}
            run = self._client.create_run(experiment_id, start_time=time_ms, tags=tags, run_name=name)
            return str(run.info.run_id)
        run_id = str(run.info.run_id)
        self.resume_run(run_id, tags, deleted=run.info.lifecycle_stage == "deleted")
        return run_id

    def resume_run(self, run_id: str, tags: Mapping[str, str], *, deleted: bool = False) -> None:
        """Set an existing run running again, with newer tags."""
        if deleted:
            self._client.restore_run(run_id)
        self._client.update_run(run_id, status="RUNNING")
        self.set_tags(run_id, tags)

    def delete_copies(self, experiment_id: str, unique_key: str, run_id: str) -> None:
        """Delete other runs with this key, left when the answer to a creation was lost on its way."""
        for run in self.runs_with_tag(experiment_id, RUN_KEY_TAG, unique_key):
            if run.info.run_id != run_id and run.info.lifecycle_stage == "active":
                self._client.delete_run(run.info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Record parameters; values over MLflow's length are cut."""
        from mlflow.entities import Param

        for some in _chunks(list(params.items()), VALUES_PER_CALL):
            batch = [Param(name, shortened(value, PARAM_LENGTH)) for name, value in some]
            self._client.log_batch(run_id, params=batch)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        from mlflow.entities import RunTag

        for some in _chunks(list(_short_tags(tags).items()), VALUES_PER_CALL):
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in some])

    def log_metrics(self, run_id: str, points: Sequence[Point]) -> None:
        """Record metric points; one that the store has already (same name, step, time and value) stays single."""
        from mlflow.entities import Metric

        # The fewer names in a batch, the less a server works: 0.2 ms a point at 200 names, 0.7 ms at 1000.
        for some in _chunks(sorted(points, key=lambda point: point[0]), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=[Metric(*point) for point in some])

    def log_artifact(self, run_id: str, path: Path, folder: str) -> None:
        """Copy a file or a folder's content into the run's artifacts; what has the same name is replaced."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(run_id, str(path), folder or None)

    def end_run(self, run_id: str, status: str, time_ms: int) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(run_id, status, time_ms)

    def artifacts(self, run_id: str, folder: str | None = None) -> list[Any]:
        """The artifacts directly in ``folder`` (None: the top), each with ``path`` and ``is_dir``."""
        return list(self._client.list_artifacts(run_id, folder))

    def download(self, run_id: str, path: str, target: Path) -> None:
        """Download one artifact, file or folder, to ``target/path``."""
        self._client.download_artifacts(run_id, path, str(target))


def is_refusal(error: Exception) -> bool:
    """True when the store understood and said no, so that trying again is useless; False for all passing trouble."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code in _REFUSED_UPLOADS
    return False


def is_unknown_user(error: Exception) -> bool:
    """True when the server asked who we are, and did not accept the answer."""
    return getattr(error, "error_code", None) == "UNAUTHENTICATED"


def reason(error: Exception) -> str:
    """What went wrong at the bottom of a chain of errors, in one line without secrets."""
    first: BaseException = error
    while (earlier := first.__cause__ or first.__context__) is not None:
        first = earlier
    text = " ".join(mask(str(first)).split())[:300]
    return f"{type(first).__name__}: {text}" if text else type(first).__name__


def _folder_name(experiment: str) -> str:
    return quote(re.sub(r"[^\w.-]", "_", experiment))


def _short_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: shortened(value, TAG_LENGTH) for name, value in tags.items()}


def _chunks(items: list[Any], most: int) -> list[list[Any]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
