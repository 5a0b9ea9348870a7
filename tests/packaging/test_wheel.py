"""A built wheel works from any folder, with its own conf/, where no checkout can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, CHECKOUT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", folder, wheel)
    return folder


def python(installed: Path, folder: Path, *arguments: str) -> str:
    """Run Python in ``folder``; -S leaves out the .pth files, and with them the checkout's editable installation."""
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-S", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_below(folder: Path, pattern: str) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob(pattern)}


def test_wheel_holds_the_package_and_conf_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    conf = {f"pipeline/conf/{name}" for name in files_below(CHECKOUT / "conf", "*.yaml")}
    code = files_below(CHECKOUT / "src", "*.py")
    assert "pipeline/conf/train.yaml" in conf
    assert {name for name in names if name.endswith((".py", ".yaml"))} == conf | code
    assert {name.split("/")[0] for name in names} == {"pipeline"}


def test_help_from_another_folder(installed: Path, tmp_path: Path) -> None:
    assert "lung_unet" in python(installed, tmp_path, "-m", "pipeline", "--help")


def test_experiment_composes_from_the_conf_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = python(installed, tmp_path, "-c", "from pipeline.conf_dir import conf_dir; print(conf_dir())")
    assert Path(where.strip()) == (installed / "pipeline" / "conf").resolve()
    config = python(installed, tmp_path, "-m", "pipeline", "--cfg", "job", "experiment=lung_unet")
    assert "name: lung_unet" in config
    assert not list(tmp_path.iterdir())


def test_console_script_is_declared(installed: Path) -> None:
    (entry_points,) = installed.glob("medical_pipeline-*.dist-info/entry_points.txt")
    assert "pipeline = pipeline.cli:main" in entry_points.read_text()
