"""Writes constraints.txt and the hashed locks from pip's reports; called by scripts/lock."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

INDEX = "https://pypi.org/simple"
OWN = "medical-pipeline"
OF_CUDA = ("nvidia-", "cuda-", "triton")


def name_of(text: str) -> str:
    """The normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


def pins_of(report: Path) -> dict[str, str]:
    """Version by package, without local parts such as +cpu."""
    packages = json.loads(report.read_text())["install"]
    found = {name_of(entry["metadata"]["name"]): entry["metadata"]["version"].partition("+")[0] for entry in packages}
    return {name: version for name, version in sorted(found.items()) if name != OWN}


def installed_hashes(report: Path) -> dict[str, str]:
    """sha256 of the very file that pip chose, where the report has one: a build of torch that PyPI does not have."""
    found = {}
    for entry in json.loads(report.read_text())["install"]:
        archive: dict[str, Any] = entry["download_info"].get("archive_info") or {}
        digest = (archive.get("hashes") or {}).get("sha256")
        if digest is not None:
            found[name_of(entry["metadata"]["name"])] = digest
    return found


def files_of(name: str, version: str) -> list[str]:
    """sha256 of every file that PyPI has of one version, none withdrawn."""
    request = urllib.request.Request(f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        files = json.load(answer)["files"]
    found = []
    for file in files:
        stem = re.sub(r"(\.tar\.gz|\.zip|\.whl)$", "", file["filename"])
        parts = stem.split("-")
        of = parts[1] if file["filename"].endswith(".whl") else stem.rpartition("-")[2]
        if of == version and not file["yanked"]:
            found.append(file["hashes"]["sha256"])
    if not found:
        sys.exit(f"{name} {version}: PyPI has no files")
    return sorted(found)


def write_lock(path: Path, pins: dict[str, str], more: dict[str, str], what: str) -> None:
    """One line a package, with all hashes."""
    with ThreadPoolExecutor(8) as pool:
        hashes = dict(zip(pins, pool.map(files_of, pins, pins.values()), strict=True))
    lines = [f"# {what} Written by scripts/lock."]
    for name, version in sorted(pins.items()):
        digests = sorted({*hashes[name], *([more[name]] if name in more else [])})
        lines.append(" \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in digests)]))
    path.write_text("\n".join(lines) + "\n")
    print(f"{path}: {len(pins)} packages")


def main() -> None:
    """Write the three files."""
    report, cuda, root = map(Path, sys.argv[1:])
    pins, chosen = pins_of(report), installed_hashes(report)
    # A CUDA build of torch asks for its own libraries exactly; a CPU build has none. Both must fit constraints.txt.
    plain = {name: version for name, version in pins.items() if not name.startswith(OF_CUDA)}
    constraints = root / "constraints.txt"
    head = "# Exact versions of everything that scripts/run and scripts/test install. Written by scripts/lock."
    constraints.write_text("\n".join([head, *(f"{name}=={version}" for name, version in plain.items())]) + "\n")
    print(f"{constraints}: {len(plain)} packages")
    write_lock(root / "requirements-cpu.lock", plain, {"torch": chosen["torch"]}, "Everything, torch for CPUs.")
    write_lock(root / "requirements-cuda.lock", plain | cuda_of(cuda), {}, "Everything, torch with CUDA (Linux).")


def cuda_of(report: Path) -> dict[str, str]:
    """The CUDA libraries of torch's build on PyPI, and theirs."""
    (torch,) = json.loads(report.read_text())["install"]
    found: dict[str, str] = {}
    waiting = list(torch["metadata"].get("requires_dist") or [])
    while waiting:
        requirement = waiting.pop()
        pinned = re.match(r"([\w.-]+)(\[[\w,-]+\])?\s*\(?==\s*([\w.]+)\)?", requirement)
        if pinned is None or not name_of(pinned[1]).startswith(OF_CUDA) or "extra ==" in requirement:
            continue
        name, version = name_of(pinned[1]), pinned[3]
        if name not in found:
            found[name] = version
            with urllib.request.urlopen(f"https://pypi.org/pypi/{name}/{version}/json", timeout=120) as answer:
                waiting += [line for line in json.load(answer)["info"]["requires_dist"] or [] if "==" in line]
    return found


if __name__ == "__main__":
    main()
