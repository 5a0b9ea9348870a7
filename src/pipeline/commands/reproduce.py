"""``python -m pipeline reproduce``: train a recorded run again from what it stored, and compare."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.check import make_console, tell
from pipeline.commands.predict import recorded_folder
from pipeline.commands.train import opened
from pipeline.config.compose import Composed
from pipeline.config.recorded import EXPERIMENT_FILE, record, recorded_configuration
from pipeline.config.schema import ReproduceConfig, TrainConfig
from pipeline.json_file import write_json
from pipeline.paths import cache_folder

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.training.interrupt import Interrupt
    from pipeline.training.reproduction import Comparison

REPRODUCTION_FILE = "reproduction.json"
DIFFERENT = 1  # exit status


def run(composed: Composed) -> int:
    """Exit status 0 where everything is identical (or within ``tolerance``), 1 where anything differs."""
    from pipeline.training.interrupt import until_stopped

    return until_stopped(partial(_run, composed))


def _run(composed: Composed, interrupt: Interrupt) -> int:
    from pipeline.training.before import differences, provenance_of
    from pipeline.training.begin import found_here
    from pipeline.training.prepare import Opened
    from pipeline.training.reproduction import compare_runs
    from pipeline.training.run_folder import named_folder, new_folder, release_folders
    from pipeline.training.session import train

    settings = composed.model
    assert isinstance(settings, ReproduceConfig)
    console = make_console()
    folder = Path(settings.run).expanduser().absolute()
    if not folder.is_dir():
        folder = recorded_folder(settings.run, settings.tracking)
    before = provenance_of(folder)
    again = recorded_configuration(
        folder,
        TrainConfig,
        overrides=[f"trust=[{','.join(composed.trusted)}]"] if composed.trusted else [],
        values=as_it_was(folder, before, settings, composed.tree["tracking"]),
    )
    recorded = again.model
    assert isinstance(recorded, TrainConfig)
    tell(f"Repeating {folder}", console)
    output = new_folder(None if settings.output is None else named_folder(settings.output), recorded.name)
    try:
        cache = cache_folder(settings.cache)
        for line in differences(before, found_here(recorded)):
            tell(f"differs: {line}", console)
        dataset, checked = opened(recorded, cache, console)
        record(output / EXPERIMENT_FILE, again.tree)
        run = Opened(
            recorded,
            again.tree,
            dataset,
            checked,
            output=output,
            cache=cache,
            console=console,
            trusted=again.trusted,
            interrupt=interrupt,
        )
        status = train(run, repeated=folder)
        if status != 0:
            return status
        comparison = compare_runs(folder, output, settings.tolerance)
        write_json(output / REPRODUCTION_FILE, {"run": str(folder), **comparison.as_json()})
        show(comparison, console)
        return 0 if comparison.same else DIFFERENT
    finally:
        release_folders()


def as_it_was(folder: Path, before: Any, settings: ReproduceConfig, tracking: dict[str, Any]) -> dict[str, Any]:
    """What is set anew in the recorded configuration: places, and what the machine chose then.

    ``tracking`` as composed: what it names of the environment is not written down.
    """
    from pipeline.prediction.trained_run import MODEL_FILE, ModelCard

    values: dict[str, Any] = {
        "output": None,
        "cache": settings.cache,
        "tracking": tracking,
        "resume": {"run": None, "allow": []},
        "launch.engine": None,
        "trust": [],
        "trainer.precision": "bf16" if ModelCard.read(folder / MODEL_FILE).bf16 else "32",
    }
    if before.get("threads"):
        values["trainer.threads"] = before["threads"]
    if settings.data.root is not None:
        values["data.root"] = str(Path(settings.data.root).expanduser().absolute())
    return values


def show(comparison: Comparison, console: Console) -> None:
    """Print what differs, and the result."""
    from rich.table import Table

    from pipeline.training.reproduction import SHOWN

    if not comparison.same:
        table = Table("value", "then", "now", "difference")
        for entry in comparison.differences[:SHOWN]:
            table.add_row(entry.what, entry.then, entry.now, "" if entry.by is None else f"{entry.by:g}")
        console.print(table)
        if len(comparison.differences) > SHOWN:
            tell(f"... and {len(comparison.differences) - SHOWN} more, in {REPRODUCTION_FILE}", console)
    tell(comparison.line(), console)
