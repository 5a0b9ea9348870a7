"""Lists what an image consists of; scripts/container size runs it inside of one."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

SHOWN_MB = 10


def megabytes(folder: Path, apart: Path | None = None) -> float:
    """What a file or folder takes, links not followed, without the folder ``apart`` and other file systems."""
    device = folder.lstat().st_dev
    total = 0 if folder.is_dir() else folder.lstat().st_size
    for where, folders, files in os.walk(folder):
        total += sum(Path(where, name).lstat().st_size for name in files)
        inside = [Path(where, name) for name in folders]
        folders[:] = [f.name for f in inside if f != apart and not f.is_symlink() and f.lstat().st_dev == device]
    return total / 1e6


def main() -> None:
    """Print the parts, largest first."""
    packages = Path(sysconfig.get_path("purelib"))
    venv = Path("/opt/venv")
    parts = {entry.name: megabytes(entry) for entry in packages.iterdir() if not entry.name.endswith(".dist-info")}
    shown = {name: size for name, size in parts.items() if size >= SHOWN_MB}
    system = {"Debian and its Python": megabytes(Path("/"), venv)}
    rest = {f"{len(parts) - len(shown)} smaller packages": megabytes(venv) - sum(shown.values())}
    for name, size in sorted((system | shown | rest).items(), key=lambda part: -part[1]):
        print(f"{size:8.1f} MB  {name}")
    bytecode = sum(file.stat().st_size for file in venv.rglob("*.pyc")) / 1e6
    total = megabytes(Path("/"), venv) + megabytes(venv)
    print(f"{total:8.1f} MB  in all, {bytecode:.1f} of them bytecode of packages")


if __name__ == "__main__":
    main()
