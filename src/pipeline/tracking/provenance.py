"""Where a result comes from: code, machine, packages, command, data."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pipeline
from pipeline.json_file import read_json
from pipeline.tracking.secrets import mask_command

PACKAGES = (
    "torch",
    "monai",
    "pytorch-lightning",
    "lightning",
    "hydra-core",
    "omegaconf",
    "mlflow",
    "pydantic",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "nibabel",
    "SimpleITK",
    "pynrrd",
    "pillow",
    "connected-components-3d",
    "matplotlib",
)

LOCK_FILE = "constraints.txt"
BUILT_FROM = Path(__file__).resolve().parents[1] / "built_from.json"  # in an image: git, lock_file and lock_sha256
CONTAINER_VARIABLE = "PIPELINE_CONTAINER"  # set in an image: its name and digest

_GIT_TIMEOUT_S = 20
CODE_PATTERNS = ("*.py", "*.yaml", "*.yml", "*.toml")


def provenance(project: Path | None) -> dict[str, Any]:
    """All that is known about this process, as plain JSON types. ``project`` is the checkout; None for no git.

    ``git`` is None outside a checkout, and in an image what it was built from. GPUs are named only when torch is loaded
    already, as loading it takes seconds. Secrets of the command line are hidden.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": mask_command(sys.orig_argv),
        "pipeline": pipeline.__version__,
        **(built_from(BUILT_FROM) if project is None else _checkout(project)),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": _packages(),
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _gpus(),
        "container": os.environ.get(CONTAINER_VARIABLE),
    }


def provenance_tags(found: dict[str, Any]) -> dict[str, str]:
    """The part of ``provenance`` that belongs on a run's MLflow page, as tags."""
    git = found["git"] or {}
    tags = {
        "host": found["host"],
        "platform": found["platform"],
        "python": found["python"],
        "command": " ".join(found["command"]),
        "pipeline.version": found["pipeline"],
        "cpu": f"{found['cpu']['model']}, {found['cpu']['usable']} of {found['cpu']['count']} cores",
        "gpu": ", ".join(found["gpus"]) or "none",
        "git.commit": git.get("commit") or "none",
        "git.dirty": str(git["dirty"]).lower() if git else "unknown",
        "container": found["container"] or "none",
        "lock.sha256": found["lock_sha256"] or "none",
    }
    if git.get("commit"):
        tags["mlflow.source.git.commit"] = git["commit"]
    if git.get("changes_sha256"):
        tags["git.changes_sha256"] = git["changes_sha256"]
    return tags | {f"version.{name}": number for name, number in found["packages"].items()}


def data_hash(files: Iterable[tuple[str, str]]) -> str:
    """One sha256 (hex) for a data set: of its file names and their sha256, in any order."""
    lines = sorted(f"{name}\0{sha256}\n" for name, sha256 in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def built_from(file: Path) -> dict[str, Any]:
    """``git``, ``lock_file`` and ``lock_sha256`` that an image's build wrote into ``file``; all None without it."""
    try:
        found = read_json(file)
    except (OSError, ValueError):
        found = {}
    return {name: found.get(name) for name in ("git", "lock_file", "lock_sha256")}


def _checkout(project: Path) -> dict[str, Any]:
    return {"git": _git(project), "lock_file": LOCK_FILE, "lock_sha256": _sha256(project / LOCK_FILE)}


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(project: Path) -> dict[str, Any] | None:
    """Commit, whether files differ from it, and a hash of the differences (of changed and of new code and YAML)."""
    # A folder that merely lies inside somebody's checkout, such as an environment, tells nothing.
    if not run_git(project, "ls-files", "-z", "--", "."):
        return None
    commit = run_git(project, "rev-parse", "--verify", "--quiet", "HEAD")
    status = run_git(project, "status", "--porcelain", "-z")
    dirty = bool(status)
    changes = None
    if dirty:
        digest = hashlib.sha256(run_git(project, "diff", "--binary", "HEAD" if commit else "--cached") or b"")
        unknown = ("ls-files", "-z", "--others", "--exclude-standard", "--full-name")
        new = run_git(project, *unknown, "--", *CODE_PATTERNS)
        root = Path(os.fsdecode(run_git(project, "rev-parse", "--show-toplevel") or b"").strip())
        for name in sorted((new or b"").split(b"\0")):
            path = root / os.fsdecode(name)
            if path.is_file():
                digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        changes = digest.hexdigest()
    return {
        "commit": commit.decode().strip() if commit else None,
        "dirty": dirty,
        "changes_sha256": changes,
    }


def run_git(project: Path, *arguments: str, index: Path | None = None) -> bytes | None:
    """Output of a git command, None when it fails or there is no git; ``index``: in place of the checkout's."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cpu() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    return {
        "model": cpu_model(),
        "count": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads() if torch is not None else None,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def cpu_model() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
