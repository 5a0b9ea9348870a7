"""The trials of a study as jobs: drawn, watched, ended early, taken over from processes that are gone, told about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema_sweep import Sweep
from pipeline.json_file import read_json, write_json
from pipeline.launch.job import Job
from pipeline.launch.queue import Entry
from pipeline.sweep.counts import Counts, counts_of
from pipeline.sweep.course import course_of
from pipeline.sweep.folder import TRIAL_FILE, SweepFolder, trial_name
from pipeline.sweep.objectives import Objective
from pipeline.sweep.parameters import Scalar, short
from pipeline.sweep.space import Space
from pipeline.sweep.study import sampler_of
from pipeline.tracking.lock import Lock
from pipeline.training.run_folder import SUMMARY_FILE, finished, is_owned

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

POINT = "grid_point"  # of a trial: which of the grid's


@dataclass
class Mine:
    """A trial whose processes this one starts."""

    trial: Trial
    values: dict[str, Scalar]
    claim: Lock
    reported: set[int] = field(default_factory=set)  # steps
    pruned: bool = False
    elsewhere: bool = False  # a process that an earlier sweep process started works on it


class Trials:
    """A source of jobs. ``command(number, values)``: argv of a trial. ``folds``: those that each trial trains.

    ``say`` gets a line about each trial that has ended.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        sweep: Sweep,
        objectives: Sequence[Objective],
        folder: SweepFolder,
        *,
        seed: int,
        folds: Sequence[int],
        command: Callable[[int, dict[str, Scalar]], tuple[str, ...]],
        say: Callable[[str], None],
    ) -> None:
        self.study = study
        self.mine: dict[str, Mine] = {}
        self._space = space
        self._sweep = sweep
        self._objectives = objectives
        self._folder = folder
        self._seed = seed
        self._folds = folds
        self._command = command
        self._say = say
        self._grid = space.grid(sweep.grid_points) if sweep.sampler == "grid" else None
        self.wanted = sweep.trials if self._grid is None else min(sweep.trials, len(self._grid))

    def next(self) -> Job | None:
        """One that no process works on any more, else a new one; None where there are enough."""
        for name, mine in self.mine.items():
            if mine.elsewhere and not self._in_use(mine.trial.number):
                mine.elsewhere = False
                return self._job(mine) if not self.ended_by_itself(name) else self.next()
        if len(self.mine) >= self._sweep.at_once:
            return None
        with self._folder.one_at_a_time("ask"):
            found = self._left_over() or self._new()
            if found is None:
                return None
            self.mine[trial_name(found.trial.number)] = found
        return self._job(found)

    def ended(self, job: Job, status: int | None) -> bool:
        """Done is what has its summary, and what was to be ended early."""
        if self.ended_by_itself(job.name):
            return True
        mine = self.mine[job.name]
        if mine.pruned:
            self._tell(job.name, "PRUNED", reason="behind the others at this point of the training")
        return mine.pruned

    def failed(self, job: Job, status: int | None) -> None:
        """Recorded as failed, with what its process said last; the study goes on."""
        mine = self.mine[job.name]
        if self._in_use(mine.trial.number):
            mine.elsewhere = True
            return
        said = _last_words(job.log)
        how = "was lost" if status is None else f"exit status {status}"
        self._tell(job.name, "FAIL", reason=f"{said} ({how})" if said else how)

    def ended_by_itself(self, name: str) -> bool:
        """Tell the scores of a trial that has come to its end."""
        folder = self._folder.trial(self.mine[name].trial.number)
        if not finished(folder):
            return False
        summary = read_json(folder / SUMMARY_FILE)
        scores = [objective.value(summary) for objective in self._objectives]
        bad = [o.metric for o, score in zip(self._objectives, scores, strict=True) if not math.isfinite(score)]
        if bad:
            self._tell(name, "FAIL", reason=f"{', '.join(bad)} of the trial is not a number")
        else:
            self._tell(name, "COMPLETE", scores)
        return True

    def watch(self, entries: Sequence[Entry]) -> None:
        """Report how the running trials do, and end those that the pruner gives up."""
        if self._sweep.pruning.method == "none":
            return
        for entry in entries:
            mine = self.mine.get(entry.job.name)
            if mine is None or mine.pruned or entry.submitted is None or entry.state != "running":
                continue
            folder = self._folder.trial(mine.trial.number)
            for step, value in course_of(folder, self._folds, self._sweep.pruning.points):
                if step in mine.reported:
                    continue
                mine.trial.report(value, step)
                mine.reported.add(step)
                if mine.trial.should_prune():
                    mine.pruned = True
                    entry.submitted.cancel()
                    break

    def counts(self) -> Counts:
        """Of all processes of the sweep."""
        return counts_of(self.study.get_trials(deepcopy=False))

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done by any process."""
        counts = self.counts()
        if counts.running:
            return False
        return counts.ended >= self.wanted or counts.failed >= self._sweep.failures or self._grid_is_used()

    def release(self) -> None:
        """Let other processes have what is not finished."""
        for mine in self.mine.values():
            mine.claim.release()
        self.mine.clear()

    def _left_over(self) -> Mine | None:
        """A trial under way of which the process is gone, claimed; finished ones are told on the way."""
        import optuna

        for frozen in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            name = trial_name(frozen.number)
            claim = self._folder.claim(frozen.number)
            if name in self.mine or not claim.acquire(0):
                continue
            if self._in_use(frozen.number):  # by a job that a cluster kept
                claim.release()
                continue
            self._use_sampler(frozen.number)
            trial = optuna.trial.Trial(self.study, frozen._trial_id)
            mine = Mine(trial, self._space.draw(trial), claim, set(frozen.intermediate_values))
            self.mine[name] = mine
            if not self.ended_by_itself(name):
                return mine
        return None

    def _new(self) -> Mine | None:
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        counts = counts_of(trials)
        if counts.ended + counts.running >= self.wanted or counts.failed >= self._sweep.failures:
            return None
        if not self._queue_point(trials):
            return None
        claim = self._folder.claim(len(trials))
        self._use_sampler(len(trials))
        trial = self.study.ask()
        if trial.number != len(trials):  # one that waited
            claim = self._folder.claim(trial.number)
        assert claim.acquire(0), claim.path
        assert isinstance(trial, optuna.Trial)
        return Mine(trial, self._space.draw(trial), claim)

    def _queue_point(self, trials: Sequence[FrozenTrial]) -> bool:
        """Have the study ask for the next point of the grid; False where all were."""
        import optuna

        if self._grid is None or any(trial.state == optuna.trial.TrialState.WAITING for trial in trials):
            return True
        used = {trial.user_attrs[POINT] for trial in trials if POINT in trial.user_attrs}
        index = next((index for index in range(len(self._grid)) if index not in used), None)
        if index is not None:
            self.study.enqueue_trial(self._grid[index], user_attrs={POINT: index})
        return index is not None

    def _grid_is_used(self) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        return self._grid is not None and len({t.user_attrs.get(POINT) for t in trials}) >= len(self._grid)

    def _in_use(self, number: int) -> bool:
        folder = self._folder.trial(number)
        return folder.is_dir() and is_owned(folder)

    def _use_sampler(self, number: int) -> None:
        self.study.sampler = sampler_of(self._sweep, self._space, self._seed, number)

    def _job(self, mine: Mine) -> Job:
        number = mine.trial.number
        return Job(trial_name(number), self._command(number, mine.values), self._folder.log(number))

    def _tell(self, name: str, state: str, scores: Sequence[float] | None = None, *, reason: str | None = None) -> None:
        import optuna

        mine = self.mine[name]
        number = mine.trial.number
        if reason is not None:
            mine.trial.set_user_attr("reason", reason)
        self.study.tell(number, scores, state=optuna.trial.TrialState[state], skip_if_finished=True)
        folder = self._folder.trial(number)
        folder.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {"number": number, "state": state, "values": mine.values, "reason": reason}
        names = [objective.metric for objective in self._objectives]
        write_json(folder / TRIAL_FILE, record | {"scores": dict(zip(names, scores, strict=True)) if scores else None})
        said = " ".join(f"{key} {score:.4g}" for key, score in zip(names, scores or (), strict=False)) or reason
        self._say(f"{name}: {state.lower()}  {said}  {short(mine.values)}")
        del self.mine[name]
        mine.claim.release()


def _last_words(log: Path) -> str:
    """The last error in a log, or its last line."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    lines = [line for line in lines if line]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:500]
