"""The local changes of a checkout as a patch, so that the code of a run can be had again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CHANGES_FILE = "changes.patch"
MOST_BYTES = 20_000_000
_TIMEOUT_S = 30
_CODE_PATTERNS = ("*.py", "*.yaml", "*.yml", "*.toml")


def write_changes(project: Path | None, path: Path) -> bool:
    """Write what differs from the commit, new code and YAML included, for ``git apply``; True where anything does.

    Nothing is written outside a checkout, or for a patch of more than 20 MB.
    """
    if project is None or shutil.which("git") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        # An index of its own: that of the user stays as it is.
        environment = {**os.environ, "GIT_INDEX_FILE": str(Path(folder, "index")), "LC_ALL": "C"}

        def git(*arguments: str) -> bytes | None:
            try:
                done = subprocess.run(
                    ["git", "-C", str(project), *arguments],
                    capture_output=True,
                    timeout=_TIMEOUT_S,
                    env=environment,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired):
                return None
            return done.stdout if done.returncode == 0 else None

        if not git("ls-files", "-z", "--with-tree=HEAD", "--", ".") or git("read-tree", "HEAD") is None:
            return False
        git("add", "--update", "--", ".")
        for pattern in _CODE_PATTERNS:
            git("add", "--", f":(glob)**/{pattern}")
        patch = git("diff", "--cached", "--binary", "HEAD")
    if not patch or len(patch) > MOST_BYTES:
        return False
    path.write_bytes(patch)
    return True
