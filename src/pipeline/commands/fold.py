"""``python -m pipeline fold``: one fold of a run that was prepared by ``train launch=...``, in this process."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.check import make_console
from pipeline.commands.train import opened
from pipeline.config.compose import Composed
from pipeline.config.recorded import EXPERIMENT_FILE, recorded_configuration
from pipeline.config.schema import TrainConfig
from pipeline.config.schema_launch import FoldConfig
from pipeline.errors import UserError
from pipeline.paths import cache_folder
from pipeline.ranks import rank

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.training.interrupt import Interrupt
    from pipeline.training.prepare import Opened


def run(composed: Composed) -> int:
    """Exit status 0 when the fold is trained and recorded; 130, 143 or 138 after Ctrl-C, SIGTERM or SIGUSR1."""
    from pipeline.training.interrupt import until_stopped

    return until_stopped(partial(_run, composed))


def _run(composed: Composed, interrupt: Interrupt) -> int:
    from pipeline.training.fold_process import train_one
    from pipeline.training.run_folder import own_fold, release_folders
    from pipeline.training.tracked import fold_key

    settings = composed.model
    assert isinstance(settings, FoldConfig)
    folder = Path(settings.run).expanduser().absolute()
    values = {} if settings.threads is None else {"trainer.threads": settings.threads}
    own_fold(folder, fold_key(settings.fold))
    try:
        run = opened_again(folder, composed.trusted, make_console(quiet=rank() > 0), interrupt, values)
        return train_one(run, settings.fold)
    finally:
        release_folders()


def opened_again(
    folder: Path, trusted: tuple[str, ...], console: Console, interrupt: Interrupt, values: dict[str, Any]
) -> Opened:
    """The run in ``folder`` with the configuration that its jobs are to have, and its data set."""
    from pipeline.training.jobs import JOBS_FOLDER
    from pipeline.training.prepare import Opened

    if not (folder / JOBS_FOLDER / EXPERIMENT_FILE).is_file():
        raise UserError(
            f"run={folder}: not the folder of a run that was launched",
            "train ... launch=local makes one, and starts this command",
        )
    overrides = [f"trust=[{','.join(trusted)}]"] if trusted else []
    again = recorded_configuration(folder / JOBS_FOLDER, TrainConfig, overrides=overrides, values=values)
    settings = again.model
    assert isinstance(settings, TrainConfig)
    cache = cache_folder(settings.cache)
    dataset, checked = opened(settings, cache, console)
    return Opened(
        settings,
        again.tree,
        dataset,
        checked,
        output=folder,
        cache=cache,
        console=console,
        trusted=again.trusted,
        interrupt=interrupt,
    )
