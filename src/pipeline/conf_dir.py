"""Where the shipped configurations are."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of the shipped configurations: inside an installed package, else the checkout's conf/."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent.parent / "conf"


def primary_configs() -> dict[str, Path]:
    """The primary configuration of each command, by the command's name."""
    return {file.stem: file for file in sorted(conf_dir().glob("*.yaml"))}
