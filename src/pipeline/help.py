"""The text of ``--help``: commands and experiments are those whose configurations exist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.conf_dir import conf_dir, primary_configs

_OVERRIDES = (
    ("experiment=NAME", "one of the experiments above"),
    ("data=FORMAT data.root=FOLDER", "your own data"),
    ("experiment=auto plan.budget=15m", "plan from your data, then train; plan=NAME uses a plan"),
    ("network=NAME network.KEY=VALUE", "another network, or a parameter of it; so for every group"),
    ("folds.count=5 folds.run=[0,2]", "cross-validation, and which folds to train"),
    ("schedule.budget=15m", "training time of a fold, with schedule.epochs=null; schedule.epochs=100: in epochs"),
    ("sampling.batch_size=8", "cases or patches per batch"),
    ("trainer=cpu|gpu|ddp", "the device; trainer.max_time=1h stops after an hour"),
    ("launch=local|slurm|ray", "each fold a process: on this machine, on a cluster"),
    ("output=FOLDER", "the run's folder"),
    ("seed=1", "another draw of everything random"),
)
_FLAGS = (
    ("--cfg job", "print the composed configuration and stop (--resolve, --package KEY)"),
    ("--info", "what the configuration is made of"),
    ("--multirun, -m", "one run for each combination of the values given, such as seed=0,1,2"),
    ("--dry-run", "only show the jobs that would be started, and their commands"),
    ("--config-dir FOLDER", "add your own configurations to those shipped"),
    ("--version", ""),
)


def help_text(config_dirs: Iterable[Path] = ()) -> str:
    """Usage, commands, experiments (those of ``config_dirs`` too), most used overrides and flags."""
    experiments = {
        file.stem: file
        for folder in (*config_dirs, conf_dir())
        for file in sorted((folder / "experiment").glob("*.yaml"))
    }
    listed = {name: _summary(file) for name, file in sorted(experiments.items())}
    parts = [
        "usage: python -m pipeline [COMMAND] [KEY=VALUE ...]",
        _table("commands (train when none is named)", {n: _summary(f) for n, f in primary_configs().items()}.items()),
        _table("experiments", listed.items()) if listed else "",
        _table("most used overrides", _OVERRIDES),
        _table("flags", _FLAGS),
        "every key that COMMAND takes: python -m pipeline COMMAND --cfg job",
    ]
    return "\n\n".join(part for part in parts if part)


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{title}:", *(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)])


def _summary(file: Path) -> str:
    """The first comment line of a configuration file, without the command that follows it."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            text = line.lstrip("#").strip()
            if not line.startswith("#"):
                break
            if text and not text.startswith("@package"):
                return text.partition(":  python")[0]
    return ""
