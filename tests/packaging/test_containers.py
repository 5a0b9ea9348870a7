"""The image: what its files promise, what scripts/container says, and (slow) that it gives the same numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.tracking.provenance import built_from, provenance, provenance_tags

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = (CHECKOUT / "docker" / "Dockerfile").read_text()
APPTAINER = (CHECKOUT / "docker" / "apptainer.def").read_text()
DIGEST = re.compile(r"debian:bookworm-slim@sha256:[0-9a-f]{64}$", re.MULTILINE)


def container(*arguments: str | Path, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """scripts/container, with the commands of the folder ``path`` alone."""
    environment = {**os.environ, **variables}
    if path is not None:
        environment["PATH"] = str(path)
    command = ["bash", str(CHECKOUT / "scripts" / "container"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def no_engine(tmp_path: Path) -> Path:
    """A folder of the everyday commands, without any container engine."""
    names = "bash cat chown cut dirname git head id mkdir readlink realpath sed sha256sum sort stat timeout unshare"
    for name in names.split():
        found = shutil.which(name)
        assert found, name
        (tmp_path / name).symlink_to(found)
    return tmp_path


def test_arguments_of_the_dockerfile() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=?(.*)$", DOCKERFILE, re.MULTILINE)[::-1])
    assert set(arguments) == {
        *("BASE", "VARIANT", "VERSION", "COMMIT", "DIRTY", "CHANGES", "LOCK_SHA256"),
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    }
    assert DIGEST.search(arguments["BASE"])
    assert set(DIGEST.findall(APPTAINER)) == {DIGEST.search(arguments["BASE"])[0]}
    given = (CHECKOUT / "scripts" / "container").read_text()
    assert all(f"{name}=" in given or name in given.split() for name in arguments)


def test_the_image_is_nobodys_root_and_leaves_building_behind() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER pipeline$", last, re.MULTILINE)
    assert "pip " not in last
    for name in ("version", "revision", "base.name", "licenses"):
        assert f"org.opencontainers.image.{name}=" in last
    assert "PIPELINE_CONTAINER=" in last
    assert 'ENTRYPOINT ["python", "-m", "pipeline"]' in last


def test_only_what_is_built_from_is_handed_to_the_engine() -> None:
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = {"src", "conf", "pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert kept == needed | {"requirements-*.lock", "docker/install.sh"}
    copied = re.findall(r"^    (\S+) /source/", APPTAINER, re.MULTILINE)
    assert {re.sub(r"requirements-.*\.lock", "requirements-*.lock", name) for name in copied} == kept


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["run", "-h"]], ids=" ".join)
def test_help(arguments: list[str]) -> None:
    done = container(*arguments)
    assert done.returncode == 0
    assert "scripts/container build" in done.stdout
    assert "--variant" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command"),
        (["built"], "built: not a command"),
        (["build", "--varient", "cpu"], "--varient: not an option of build"),
        (["build", "--variant", "gpu"], "--variant gpu: it is cpu or cuda"),
        (["test", "--image"], "--image: a value is missing"),
        (["build", "now"], "now: build takes no arguments"),
        (["build", "--engine", "rkt"], "--engine rkt: it is docker, podman or buildah"),
        (["run", "--engine", "podman", "--help=now"], "--engine podman: does not work here"),
        (["build"], "neither docker nor podman nor buildah works here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments: list[str], said: str, no_engine: Path) -> None:
    done = container(*arguments, path=no_engine)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert not done.stdout


def test_what_an_image_was_built_from_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "built_from.json"
    assert built_from(file) == {"git": None, "lock_file": None, "lock_sha256": None}
    git = {"commit": "1" * 40, "dirty": False, "changes_sha256": None}
    file.write_text(json.dumps({"git": git, "lock_file": "requirements-cpu.lock", "lock_sha256": "2" * 64}))
    monkeypatch.setattr(import_module("pipeline.tracking.provenance"), "BUILT_FROM", file)
    monkeypatch.setenv("PIPELINE_CONTAINER", "medical-pipeline:cpu@sha256:3")
    found = provenance(None)
    assert (found["git"], found["lock_sha256"], found["container"]) == (git, "2" * 64, "medical-pipeline:cpu@sha256:3")
    tags = provenance_tags(found)
    assert (tags["git.commit"], tags["lock.sha256"]) == ("1" * 40, "2" * 64)


def test_state_of_the_checkout_is_that_of_provenance() -> None:
    """By the script's own function, on this checkout as it is."""
    script = (CHECKOUT / "scripts" / "container").read_text()
    function = re.search(r"^checkout_state\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)[0]
    command = ["bash", "-c", f"root=$1\n{function}\ncheckout_state", "bash", str(CHECKOUT)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    said = dict(line.split("=", 1) for line in lines)
    git = provenance(CHECKOUT)["git"]
    if git is None:
        pytest.skip("no git checkout")
    assert said["COMMIT"] == git["commit"]
    assert said.get("DIRTY", "false") == str(git["dirty"]).lower()
    assert said.get("CHANGES") == git["changes_sha256"]


@pytest.mark.slow
def test_the_same_numbers_inside_and_outside(tmp_path: Path) -> None:
    """Builds the CPU image by buildah on a base made with debootstrap, and trains in it and here."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, buildah and debootstrap; missing: {missing or 'root'}")
    subprocess.run(["bash", CHECKOUT / "scripts" / "cluster" / "base-image", "localhost/debian-base"], check=True)
    options = ["--engine", "buildah", "--image", "localhost/medical-pipeline:test"]
    built = container("build", *options, "--base", "localhost/debian-base")
    assert built.returncode == 0, built.stderr[-3000:]
    tested = container("test", *options, PYTHON=sys.executable)
    assert tested.returncode == 0, tested.stdout[-3000:] + tested.stderr[-3000:]
    assert "identical" in tested.stdout
