"""The local changes of a checkout as a patch, so that the code of a run can be had again."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from pipeline.tracking.provenance import CODE_PATTERNS, run_git

CHANGES_FILE = "changes.patch"
MOST_BYTES = 20_000_000


def write_changes(project: Path | None, path: Path) -> None:
    """Write what differs from the commit, new code and YAML included, for ``git apply``.

    Nothing is written outside a checkout, where nothing differs, or for a patch of more than 20 MB.
    """
    if project is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        git = partial(run_git, project, index=Path(folder, "index"))  # the user's own index stays as it is
        if not git("ls-files", "-z", "--with-tree=HEAD", "--", ".") or git("read-tree", "HEAD") is None:
            return
        git("add", "--update", "--", ".")
        for pattern in CODE_PATTERNS:
            git("add", "--", f":(glob)**/{pattern}")
        patch = git("diff", "--cached", "--binary", "HEAD")
    if patch and len(patch) <= MOST_BYTES:
        path.write_bytes(patch)
