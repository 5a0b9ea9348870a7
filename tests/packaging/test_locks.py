"""The hashed locks: complete, of the same versions as constraints.txt, none of them with a known hole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
RUN_LOCKS = ("requirements-cpu.lock", "requirements-cuda.lock")
LOCKS = (*RUN_LOCKS, "requirements-build.lock")
OF_CUDA = ("nvidia-", "cuda-", "triton")  # asked for by torch's CUDA build alone
ENTRY = re.compile(r"^([a-z0-9-]+)==([\w.+!]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def versions(lock: str) -> dict[str, Version]:
    """Version by package; every line of the file belongs to a comment or to an entry with hashes."""
    text = (CHECKOUT / lock).read_text()
    found = ENTRY.findall(text)
    rest = [line for line in ENTRY.sub("", text).splitlines() if line and not line.startswith("#")]
    assert not rest, rest
    assert len({name for name, _, _ in found}) == len(found)
    return {name: Version(version) for name, version, _ in found}


def constraints() -> dict[str, Version]:
    lines = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {name: Version(version) for name, _, version in (line.partition("==") for line in lines)}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(entry.name): entry for entry in map(Requirement, lines)}


def holes() -> dict[str, Version]:
    """The first safe version by package, from the table in SECURITY.md."""
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([^|]+) \|", (CHECKOUT / "SECURITY.md").read_text(), re.MULTILINE)
    identifier = re.compile(r"(CVE|PYSEC)-\d{4}-\d{4,}|GHSA(-[a-z0-9]{4}){3}")
    assert all(identifier.fullmatch(name) for _, _, names in rows for name in names.split(", "))
    return {name: Version(version) for name, version, _ in rows}


RUN = requirements(PROJECT["project"]["dependencies"])
TEST = requirements(PROJECT["project"]["optional-dependencies"]["test"])
BUILD = requirements(PROJECT["build-system"]["requires"])


@pytest.mark.parametrize(
    ("lock", "wanted"), [*((lock, RUN) for lock in RUN_LOCKS), ("requirements-build.lock", BUILD)], ids=LOCKS
)
def test_every_dependency_is_locked_within_its_range(lock: str, wanted: dict[str, Requirement]) -> None:
    found = versions(lock)
    assert set(wanted) <= set(found)
    assert not [name for name, entry in wanted.items() if not entry.specifier.contains(found[name])]


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_and_constraints_agree(lock: str) -> None:
    pinned = constraints()
    assert set(RUN) | set(TEST) | set(BUILD) <= set(pinned)
    found = {name: version for name, version in versions(lock).items() if not name.startswith(OF_CUDA)}
    assert {name: version.public for name, version in found.items()} == {name: str(pinned[name]) for name in found}


def test_builds_of_torch() -> None:
    cpu, cuda = (versions(lock) for lock in RUN_LOCKS)
    assert cpu["torch"].local == "cpu"
    assert cuda["torch"].local is None
    assert not [name for name in cpu if name.startswith(OF_CUDA)]
    assert {name for name in cuda if not name.startswith(OF_CUDA)} == set(cpu)
    assert len(cuda) > len(cpu)


def test_what_packages_ask_for_is_locked() -> None:
    """By the metadata of the installed packages, which are those of constraints.txt."""
    lock = versions("requirements-cpu.lock")
    wanted = [(name, "") for name in lock]
    seen = set()
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        assert name in lock, f"{name} is missing"
        try:
            found = distribution(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        if Version(found.version).public != lock[name].public or name == "torch":  # which build of it is chance
            continue
        for entry in map(Requirement, found.requires or []):
            if entry.marker is None or entry.marker.evaluate({"extra": extra}):
                wanted += [(canonicalize_name(entry.name), each) for each in ("", *entry.extras)]


def test_no_version_has_a_known_hole() -> None:
    safe = holes()
    assert {"torch", "pytorch-lightning", "monai", "mlflow", "pillow", "pydicom", "pyarrow", "jinja2"} <= set(safe)
    locked = constraints() | versions("requirements-cuda.lock")
    assert set(safe) <= set(locked)
    assert not {name: str(locked[name]) for name, version in safe.items() if locked[name] < version}
    lower = {
        name: Version(bound.version)
        for name, entry in {**RUN, **TEST, **BUILD}.items()
        for bound in entry.specifier
        if bound.operator == ">="
    }
    assert not {name: str(lower[name]) for name, version in safe.items() if name in lower and lower[name] < version}


def test_pip_refuses_another_file(tmp_path: Path) -> None:
    name = "einops"
    lock = (CHECKOUT / "requirements-cpu.lock").read_text()
    entry = next(match.group() for match in ENTRY.finditer(lock) if match[1] == name)

    def install(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "one.lock").write_text(text + "\n")
        command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-compile", "--quiet"]
        command += ["--retries=0", "--timeout=5", "--target", tmp_path / "site", "--requirement", tmp_path / "one.lock"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    as_it_is = install(entry)
    if as_it_is.returncode != 0 and "HASH" not in as_it_is.stderr:
        pytest.skip(f"no package index: {as_it_is.stderr[-200:]}")
    assert as_it_is.returncode == 0, as_it_is.stderr
    changed = install(re.sub(r"sha256:.", lambda match: "sha256:" + ("1" if match[0][-1] == "0" else "0"), entry))
    assert changed.returncode != 0
    assert "DO NOT MATCH THE HASHES" in changed.stderr
