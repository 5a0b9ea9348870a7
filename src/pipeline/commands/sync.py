"""``python -m pipeline sync``: send to MLflow what a run kept while its server was away."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands.check import make_console
from pipeline.config.compose import Composed
from pipeline.config.schema import SyncConfig
from pipeline.errors import UserError


def run(composed: Composed) -> int:
    """Exit status 0 when everything the run recorded is in MLflow."""
    from pipeline.tracking import sync

    settings = composed.model
    assert isinstance(settings, SyncConfig)
    folder = Path(settings.run).expanduser().absolute()
    if not (folder / "tracking").is_dir():
        raise UserError(f"run={settings.run}: not the folder of a recorded run", "it has no folder tracking/")
    report = sync(folder, settings.tracking.uri)
    said = f"{report.events} entries sent to {report.uri}"
    if report.refused:
        said += f"; MLflow did not take {report.refused}, see {folder / 'tracking' / 'sent.json'}"
    make_console().print(said, highlight=False, markup=False, soft_wrap=True)
    return 0
