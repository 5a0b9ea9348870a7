from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pipeline.tracking import data_hash, provenance, provenance_tags


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_git_state(tmp_path: Path) -> None:
    assert provenance(tmp_path)["git"] is None
    git(tmp_path, "init", "-q")
    assert provenance(tmp_path)["git"] is None
    (tmp_path / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "a.py")
    assert provenance(tmp_path)["git"]["commit"] is None
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance(tmp_path)["git"] == {"commit": commit, "dirty": False, "changes_sha256": None}

    (tmp_path / "a.py").write_text("x = 2\n")
    changed = provenance(tmp_path)["git"]
    assert (changed["commit"], changed["dirty"]) == (commit, True)
    assert provenance(tmp_path)["git"] == changed
    (tmp_path / "b.yaml").write_text("y: 1\n")
    added = provenance(tmp_path)["git"]["changes_sha256"]
    (tmp_path / "b.yaml").write_text("y: 2\n")
    edited = provenance(tmp_path)["git"]["changes_sha256"]
    assert len({changed["changes_sha256"], added, edited}) == 3

    environment = tmp_path / "venv" / "lib"
    environment.mkdir(parents=True)
    assert provenance(environment)["git"] is None


def test_everything_is_plain_and_becomes_tags() -> None:
    found = provenance(None)
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["cpu"]["usable"] >= 1
    assert found["packages"]["mlflow"]
    tags = provenance_tags(found)
    assert all(isinstance(value, str) for value in tags.values())
    assert tags["git.commit"] == "none"
    assert tags["git.dirty"] == "unknown"
    assert tags["version.torch"] == found["packages"]["torch"]


def test_secrets_of_the_command_are_hidden() -> None:
    program = "import json; from pipeline.tracking import provenance; print(json.dumps(provenance(None)))"
    arguments = ["tracking.uri=http://me:hunter2@host", "data.password=hunter2", "lr=0.1"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    assert "hunter2" not in done.stdout
    assert json.loads(done.stdout)["command"][-3:] == ["tracking.uri=http://me:***@host", "data.password=***", "lr=0.1"]


def test_importing_tracking_is_light() -> None:
    program = "import sys, pipeline.tracking; print([m for m in ('mlflow', 'torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_data_hash_depends_on_names_and_contents_only() -> None:
    files = [("a.nii.gz", "01"), ("b.nii.gz", "02")]
    assert data_hash(files) == data_hash(reversed(files))
    assert data_hash(files) != data_hash([("a.nii.gz", "02"), ("b.nii.gz", "01")])
    assert len(data_hash([])) == 64
