"""Writes constraints.txt and the hashed locks from pip's reports; called by scripts/lock, in its environment."""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pip._internal.models.index import PyPI  # where pip looks unless told otherwise
from pip._vendor.packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from pip._vendor.packaging.version import InvalidVersion, Version

OWN = "medical-pipeline"
OF_CUDA = ("nvidia-", "cuda-", "triton")  # what a CUDA build of torch asks for exactly, and a CPU build does not have
TIMEOUT_S = 120

VERSIONS = "# Exact versions of everything that scripts/run and scripts/test install. Written by scripts/lock."
HASHES = """\
# {what}.
# Exact versions with the sha256 of every file that the package index has of them. Written by scripts/lock.
#   pip install --require-hashes {more}-r {name}"""
WHAT = {
    "requirements-cpu.lock": (
        "What a run needs, torch for CPUs: on Linux, x86_64, Python 3.11. FOLDER: with its wheel, or its index",
        "--find-links FOLDER ",
    ),
    "requirements-cuda.lock": ("What a run needs, torch with CUDA and its libraries: on Linux, x86_64", ""),
    "requirements-build.lock": ("What builds and installs our own package, and others that come as sources", ""),
}


def name_of(text: str) -> str:
    """The normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


def packages_of(report: Path) -> dict[str, dict[str, Any]]:
    """What pip would install, by name, without ourselves."""
    packages = json.loads(report.read_text())["install"]
    found = {name_of(entry["metadata"]["name"]): entry for entry in packages}
    return {name: entry for name, entry in sorted(found.items()) if name != OWN}


def write_versions(report: Path, constraints: Path) -> None:
    """constraints.txt, which fits every build of torch: no local parts of versions, no CUDA libraries."""
    found = {
        name: entry["metadata"]["version"].partition("+")[0]
        for name, entry in packages_of(report).items()
        if not name.startswith(OF_CUDA)
    }
    constraints.write_text("\n".join([VERSIONS, *(f"{name}=={version}" for name, version in found.items())]) + "\n")
    print(f"{constraints}: {len(found)} packages")


def write_hashes(report: Path, lock: Path) -> None:
    """A lock: one entry a package."""
    packages = packages_of(report)
    if lock.name == "requirements-cpu.lock" and not packages["torch"]["metadata"]["version"].endswith("+cpu"):
        sys.exit("pip finds no CPU build of torch: name where one is, in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS")
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(digests_of, packages, packages.values()))
    what, more = WHAT[lock.name]
    lines = [HASHES.format(what=what, more=more, name=lock.name)]
    for (name, entry), found in zip(packages.items(), digests, strict=True):
        hashes = [f"--hash=sha256:{digest}" for digest in found]
        lines.append(" \\\n    ".join([f"{name}=={entry['metadata']['version']}", *hashes]))
    lock.write_text("\n".join(lines) + "\n")
    print(f"{lock}: {len(packages)} packages, {sum(map(len, digests))} files")


def digests_of(name: str, entry: dict[str, Any]) -> list[str]:
    """sha256 of every file of the version that pip chose; of a local build (+cpu) the file itself."""
    version = Version(entry["metadata"]["version"])
    found = [digest_of_chosen(entry)] if version.local else digests_of_index(name, version)
    if not found:
        sys.exit(f"{name} {version}: the package index has no files of it")
    return sorted(found)


def digest_of_chosen(entry: dict[str, Any]) -> str:
    chosen = entry["download_info"]
    known = (chosen.get("archive_info") or {}).get("hashes", {}).get("sha256")
    if known is not None:
        return str(known)
    path = urllib.parse.unquote(urllib.parse.urlparse(chosen["url"]).path)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of_index(name: str, version: Version) -> set[str]:
    """By the index's answer in JSON (PEP 691); none that was withdrawn."""
    request = urllib.request.Request(
        f"{index_url().rstrip('/')}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    certificates = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=certificates) as answer:
        files = json.load(answer)["files"]
    return {
        file["hashes"]["sha256"] for file in files if version_of(file["filename"]) == version and not file["yanked"]
    }


def index_url() -> str:
    """pip's index: of its environment, of its configuration, or its default."""
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return os.environ.get("PIP_INDEX_URL") or configured or PyPI.simple_url


def version_of(filename: str) -> Version | None:
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        return parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None  # eggs and installers of long ago


def main() -> None:
    """``index``, ``versions REPORT CONSTRAINTS`` or ``hashes REPORT LOCK``."""
    what, *paths = sys.argv[1:]
    if what == "index":
        print(index_url())
    else:
        report, path = map(Path, paths)
        {"versions": write_versions, "hashes": write_hashes}[what](report, path)


if __name__ == "__main__":
    main()
