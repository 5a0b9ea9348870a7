"""The floor plan: imports only go down, files stay short, and nothing heavy stands at the door."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "pipeline"

# Part of the package: its floor. A part imports from lower floors only; those of one floor know nothing of each other.
FLOORS = {
    "__main__": 9,
    "door": 8,
    "commands": 7,
    "sweep": 6,
    "training": 5,
    "prediction": 4,
    "tasks": 4,
    "evaluation": 3,
    "planning": 3,
    "config": 2,
    "data": 2,
    "inference": 2,
    "launch": 3,
    "networks": 2,
    "optimizers": 2,
    "tracking": 2,
    "transforms": 2,
    "__init__": 1,
    "collective": 1,
    "conf_dir": 1,
    "errors": 1,
    "json_file": 1,
    "paths": 1,
    "progress_bar": 1,
    "randomness": 1,
    "ranks": 1,
}
# Files of the package's own folder that are one part.
DOOR = {"arguments", "cli", "help", "hydra_modes"}
# Between parts of one floor: (who imports, what).
SAME_FLOOR: set[tuple[str, str]] = set()

FILE_LINES = 250  # a longer file is probably two concepts
MOST_FILE_LINES = 300

HEAVY = {"torch", "monai", "mlflow", "pytorch_lightning", "lightning", "pandas", "matplotlib", "sklearn"}


def part_of(module: str) -> str:
    """``pipeline.data.case`` -> ``data``."""
    name = module.split(".")[1] if "." in module else "__init__"
    return "door" if name in DOOR else name


def imported_modules(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, wherever in it the import stands."""
    package = ["pipeline", *file.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "pipeline")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "pipeline":
                names = [alias.name for alias in node.names]
                yield from (f"pipeline.{name}" if is_module(name) else "pipeline" for name in names)
            elif module.startswith("pipeline."):
                yield module


def is_module(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of_file(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return part_of(f"pipeline.{first}")


def test_every_part_has_a_floor() -> None:
    assert {part_of_file(file) for file in sources()} <= set(FLOORS)


def test_imports_only_go_down() -> None:
    wrong = {
        f"{file.relative_to(PACKAGE)} imports {module}"
        for file in sources()
        for module in imported_modules(file)
        if (importer := part_of_file(file)) != (imported := part_of(module))
        and FLOORS[importer] <= FLOORS[imported]
        and (importer, imported) not in SAME_FLOOR
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_files_are_short() -> None:
    lines = {str(file.relative_to(PACKAGE)): file.read_text().count("\n") for file in sources()}
    long = {name: count for name, count in lines.items() if count > FILE_LINES}
    assert all(count <= MOST_FILE_LINES for count in long.values()), long
    if long:
        warnings.warn(f"over {FILE_LINES} lines: {long}", stacklevel=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import pipeline.cli, pipeline.errors, pipeline.config.compose"],
        ["-m", "pipeline", "--help"],
        ["-m", "pipeline", "experiment=no_such_experiment"],
    ],
    ids=["imports", "help", "mistake"],
)
def test_nothing_heavy_at_the_door(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    assert done.returncode == (2 if "experiment=no_such_experiment" in arguments else 0), "\n".join(said)
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    assert "pipeline" in loaded
    assert not loaded & HEAVY
