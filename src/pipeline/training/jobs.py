"""The folds of a run as jobs: what their processes are told, and which of them are done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.json_file import read_json, write_json
from pipeline.launch.job import Job
from pipeline.training.finished import is_finished
from pipeline.training.run_folder import SUMMARY_FILE
from pipeline.training.tracked import fold_key

JOBS_FOLDER = "jobs"  # in the folder of a run: the configuration of its jobs, and what they say
LAUNCHED_FILE = "launched.json"


def log_of(output: Path, fold: int) -> Path:
    """What the process of a fold says."""
    return output / JOBS_FOLDER / f"{fold_key(fold)}.log"


def fold_job(output: Path, fold: int, *, threads: int | None, trusted: Sequence[str]) -> Job:
    """The job that trains one fold of the run in ``output``."""
    command = [sys.executable, "-m", "pipeline", "fold", f"run={output}", f"fold={fold}"]
    command += [] if threads is None else [f"threads={threads}"]
    command += [f"trust=[{','.join(trusted)}]"] if trusted else []
    return Job(fold_key(fold), tuple(command), log_of(output, fold))


class FoldJobs:
    """The folds that are not finished yet, as a source of jobs."""

    def __init__(self, output: Path, folds: Sequence[int], *, threads: int | None, trusted: Sequence[str]) -> None:
        self.output = output
        self._jobs = [
            fold_job(output, fold, threads=threads, trusted=trusted)
            for fold in folds
            if not is_finished(output / fold_key(fold))
        ]
        self.count = len(self._jobs)

    def next(self) -> Job | None:
        """In the order of the folds."""
        return self._jobs.pop(0) if self._jobs else None

    def ended(self, job: Job, status: int | None) -> bool:
        """Done is what has its file."""
        return is_finished(self.output / job.name)

    def failed(self, job: Job, status: int | None) -> None:
        """The others go on."""


@dataclass(frozen=True)
class Launched:
    """Which folds belong to a run, as recorded by the process that launched them."""

    folds: tuple[int, ...]
    threads: int | None

    def write(self, output: Path) -> None:
        """Record it in the folder of the run."""
        (output / JOBS_FOLDER).mkdir(exist_ok=True)
        write_json(output / JOBS_FOLDER / LAUNCHED_FILE, {"folds": list(self.folds), "threads": self.threads})

    @classmethod
    def read(cls, output: Path) -> Launched | None:
        """What was recorded, None for a run that was not launched; raises UserError for a file that is no record."""
        path = output / JOBS_FOLDER / LAUNCHED_FILE
        if not path.exists():
            return None
        try:
            content: Any = read_json(path)
            return cls(tuple(int(fold) for fold in content["folds"]), content["threads"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: not readable: {error}") from error

    def unfinished(self, output: Path) -> list[int]:
        """The folds with which something is left to be done."""
        return [fold for fold in self.folds if not is_finished(output / fold_key(fold))]

    def summarised(self, output: Path) -> bool:
        """Whether summary.json is that of these folds."""
        try:
            content: Any = read_json(output / SUMMARY_FILE)
            return [fold["fold"] for fold in content["folds"]] == list(self.folds)
        except (OSError, ValueError, TypeError, KeyError):
            return False
