"""Trials of a study: counted, watched, ended early, taken over. Files stand for what trainings leave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from pipeline.cli import main
from pipeline.config.compose import compose
from pipeline.config.schema import SweepConfig
from pipeline.config.validate import validate
from pipeline.errors import UserError
from pipeline.launch import Local
from pipeline.launch.job import Job
from pipeline.launch.queue import Queue
from pipeline.sweep.course import course_of
from pipeline.sweep.folder import SweepFolder, trial_name
from pipeline.sweep.objectives import Objective, objectives_of
from pipeline.sweep.space import read_space
from pipeline.sweep.study import open_study, pruner_of, require_optuna, require_possible, sampler_of, storage_address
from pipeline.sweep.trials import Trials

LR = {"optimizer.lr": {"float": [1e-4, 1e-2], "log": True}}
DICE = Objective("dice", "maximize")


def settings(*overrides: str) -> SweepConfig:
    found = validate(compose("sweep", overrides), SweepConfig).model
    assert isinstance(found, SweepConfig)
    return found


def trials_in(folder: Path, *overrides: str, space: dict[str, Any] = LR, folds: Sequence[int] = (0,)) -> Trials:
    """What a sweep process in ``folder`` works with; its jobs run a shell script."""
    require_optuna()
    config = settings(*overrides)
    objectives = objectives_of(config, config.sweep.objectives)
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    study = open_study(f"sqlite:///{folder}/study.db", "sweep", objectives, pruner_of(config.sweep, len(folds)))
    return Trials(
        study,
        read_space(space),
        config.sweep,
        objectives,
        SweepFolder(folder),
        seed=config.seed,
        folds=folds,
        command=lambda number, values: ("true",),
        say=lambda line: None,
    )


def finish(folder: Path, number: int, dice: float | None, **more: Any) -> None:
    """Leave the summary of a trial that came to its end."""
    trial = SweepFolder(folder).trial(number)
    trial.mkdir(parents=True, exist_ok=True)
    summary = {"metrics": {"dice": {"mean": dice}}, "seconds": 5.0, "folds": [{"parameters": 7}]} | more
    (trial / "summary.json").write_text(json.dumps(summary))


def drawn(job: Job | None) -> str:
    assert job is not None
    return job.name


def number_of(name: str) -> int:
    return int(name.removeprefix("trial_"))


def states(trials: Trials) -> list[str]:
    return [trial.state.name for trial in trials.study.get_trials()]


def test_as_many_as_are_wanted_and_no_more(tmp_path: Path) -> None:
    trials = trials_in(tmp_path, "sweep.trials=3", "sweep.at_once=2")
    first, second = trials.next(), trials.next()
    assert [drawn(first), drawn(second)] == ["trial_0000", "trial_0001"]
    assert trials.next() is None  # two at once
    finish(tmp_path, 0, 0.5)
    assert first is not None and trials.ended(first, 0)
    assert drawn(third := trials.next()) == "trial_0002"
    finish(tmp_path, 1, 0.6)
    assert second is not None and trials.ended(second, 0)
    assert trials.next() is None  # three in all
    assert not trials.over
    finish(tmp_path, 2, 0.4)
    assert third is not None and trials.ended(third, 0)
    assert trials.over
    assert states(trials) == ["COMPLETE"] * 3
    assert trials.study.best_trial.number == 1
    assert json.loads((tmp_path / "trials" / "0001" / "trial.json").read_text())["scores"] == {"dice": 0.6}


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    one, other = (trials_in(tmp_path, "sweep.trials=2") for _ in range(2))
    assert drawn(one.next()) == "trial_0000"
    assert drawn(other.next()) == "trial_0001"
    assert one.next() is None
    assert other.next() is None
    assert not one.over


def test_trials_of_a_process_that_is_gone_are_gone_on_with(tmp_path: Path) -> None:
    gone = trials_in(tmp_path, "sweep.trials=2")
    jobs = [gone.next(), gone.next()]
    values = {name: mine.values for name, mine in gone.mine.items()}
    finish(tmp_path, 1, 0.7)  # came to its end unnoticed
    gone.release()  # as the system does for a process that was killed
    trials = trials_in(tmp_path, "sweep.trials=2")
    assert drawn(trials.next()) == drawn(jobs[0])
    assert trials.mine["trial_0000"].values == values["trial_0000"]
    assert trials.next() is None
    assert states(trials) == ["RUNNING", "COMPLETE"] or trials.next() is None
    finish(tmp_path, 0, 0.6)
    job = Job("trial_0000", ("true",), tmp_path / "log")
    assert trials.ended(job, 0)
    assert trials.next() is None
    assert trials.over
    assert states(trials) == ["COMPLETE", "COMPLETE"]


def test_interrupted_or_not_the_same_is_drawn(tmp_path: Path) -> None:
    def course(folder: Path, interrupted: bool) -> list[Any]:
        trials = trials_in(folder, "sweep.trials=8", "sweep.startup=4", "seed=3")
        for _ in range(8):
            if interrupted:
                trials.release()
                trials = trials_in(folder, "sweep.trials=8", "sweep.startup=4", "seed=3")
            job = trials.next()
            assert job is not None
            lr = trials.mine[job.name].values["optimizer.lr"]
            assert isinstance(lr, float)
            finish(folder, number_of(job.name), 1 - abs(lr - 0.003))
            assert trials.ended(job, 0)
        return [trial.params for trial in trials.study.get_trials()]

    quiet = course(tmp_path / "quiet", interrupted=False)
    assert quiet == course(tmp_path / "broken", interrupted=True)
    assert len({params["optimizer.lr"] for params in quiet}) == 8


def test_what_fails_is_recorded_with_its_reason_and_comes_on_top(tmp_path: Path) -> None:
    trials = trials_in(tmp_path, "sweep.trials=1", "sweep.failures=3", "sweep.at_once=9")
    first = trials.next()
    assert first is not None
    first.log.write_text("epoch 1\nerror: fold 0: the loss is NaN\n    on_nan=skip leaves the step out\n")
    assert not trials.ended(first, 2)
    trials.failed(first, 2)
    second = trials.next()
    assert second is not None
    finish(tmp_path, 1, None)
    assert trials.ended(second, 0)
    third = trials.next()
    assert third is not None
    finish(tmp_path, 2, 0.5)
    assert trials.ended(third, 0)
    assert states(trials) == ["FAIL", "FAIL", "COMPLETE"]
    reasons = [trial.user_attrs.get("reason") for trial in trials.study.get_trials()]
    assert reasons == ["fold 0: the loss is NaN (exit status 2)", "dice of the trial is not a number", None]
    assert trials.next() is None
    assert trials.over


def test_too_many_failures_end_a_sweep(tmp_path: Path) -> None:
    trials = trials_in(tmp_path, "sweep.trials=5", "sweep.failures=2")
    for _ in range(2):
        job = trials.next()
        assert job is not None
        trials.failed(job, None)
    assert trials.next() is None
    assert trials.over


def test_a_grid_is_gone_through_once(tmp_path: Path) -> None:
    space = {
        "network": {"choice": ["unet", "segresnet"]},
        "network.width": {"int": [8, 16], "step": 8, "when": {"network": "unet"}},
    }
    found = []
    for _ in range(5):  # each time another process
        trials = trials_in(tmp_path, "sweep.sampler=grid", "sweep.trials=99", space=space)
        assert trials.wanted == 3
        job = trials.next()
        if job is None:
            break
        found.append(trials.mine[job.name].values)
        finish(tmp_path, number_of(job.name), 0.5)
        assert trials.ended(job, 0)
    assert found == [
        {"network": "unet", "network.width": 8},
        {"network": "unet", "network.width": 16},
        {"network": "segresnet"},
    ]
    assert trials.over


def test_several_objectives(tmp_path: Path) -> None:
    trials = trials_in(
        tmp_path,
        "sweep.trials=2",
        "sweep.objectives=[{metric: dice}, {metric: parameters}, {metric: seconds, direction: minimize}]",
    )
    job = trials.next()
    assert job is not None
    finish(tmp_path, 0, 0.5)
    assert trials.ended(job, 0)
    assert trials.study.get_trials()[0].values == [0.5, 7.0, 5.0]
    assert [direction.name for direction in trials.study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]


def write_course(folder: Path, number: int, values: dict[int, float], *, epochs: int, fold: int = 0) -> None:
    """A fold under way: validation metric by epoch, from 0."""
    trial = SweepFolder(folder).trial(number)
    part = trial / f"fold_{fold}"
    part.mkdir(parents=True, exist_ok=True)
    tree = {"schedule": {"epochs": epochs, "budget": None}, "trainer": {"max_steps": None}}
    (trial / "experiment.yaml").write_text(yaml.safe_dump(tree))
    rows = [f"{epoch},{epoch * 2},{epoch}.5,0.1,0.3,{values.get(epoch, '')}" for epoch in range(max(values) + 1)]
    (part / "metrics.csv").write_text("\n".join(["epoch,step,seconds,lr,train_loss,val_metric", *rows]) + "\n")


def write_fitted(folder: Path, number: int, last: float, fold: int = 0) -> None:
    content = {"best_metric": last, "best_epoch": 1, "last_metric": last, "epochs": 9, "steps": 9, "seconds": 1.0}
    (SweepFolder(folder).trial(number) / f"fold_{fold}" / "fitted.json").write_text(json.dumps(content))


def test_course_of_a_trial_by_hand(tmp_path: Path) -> None:
    trial = SweepFolder(tmp_path).trial(0)
    assert course_of(trial, (3, 5), 4) == []
    write_course(tmp_path, 0, {1: 0.2, 3: 0.4, 4: 0.5}, epochs=8, fold=3)
    # After epoch 1 a quarter is behind it, after epoch 3 half; epoch 4 (0.625) is in the same part as epoch 3.
    assert course_of(trial, (3, 5), 4) == [(1, 0.2), (2, 0.4)]
    write_course(tmp_path, 0, {1: 0.2, 3: 0.4, 7: 0.6}, epochs=8, fold=3)
    write_fitted(tmp_path, 0, 0.6, fold=3)
    write_course(tmp_path, 0, {1: 0.4}, epochs=8, fold=5)
    course = course_of(trial, (3, 5), 4)
    assert [step for step, _ in course] == [1, 2, 3, 4, 5]
    assert [value for _, value in course] == pytest.approx([0.2, 0.4, 0.6, 0.6, 0.5])


def test_median_ends_what_falls_behind(tmp_path: Path) -> None:
    how = ("sweep.trials=4", "sweep.pruning.method=median", "sweep.pruning.startup=2", "sweep.pruning.warmup=1")
    trials = trials_in(tmp_path, *how, "sweep.pruning.points=4")
    for number, values in enumerate(({1: 0.5, 3: 0.7}, {1: 0.3, 3: 0.5})):
        job = trials.next()
        assert job is not None
        write_course(tmp_path, number, values, epochs=8)
        trials.watch(running(job))
        assert not trials.mine[job.name].pruned
        finish(tmp_path, number, 0.5)
        assert trials.ended(job, 0)
    # Medians: 0.4 at the first point, 0.6 at the second.
    behind = trials.next()
    assert behind is not None
    write_course(tmp_path, 2, {1: 0.1}, epochs=8)
    trials.watch(entries := running(behind))
    assert not trials.mine[behind.name].pruned  # warmup
    write_course(tmp_path, 2, {1: 0.1, 3: 0.59}, epochs=8)
    trials.watch(entries)
    assert trials.mine[behind.name].pruned
    assert trials.ended(behind, 143)
    ahead = trials.next()
    assert ahead is not None
    write_course(tmp_path, 3, {1: 0.1, 3: 0.61}, epochs=8)
    trials.watch(running(ahead))
    assert not trials.mine[ahead.name].pruned
    assert states(trials) == ["COMPLETE", "COMPLETE", "PRUNED", "RUNNING"]
    assert trials.counts().ended == 3


def running(job: Job) -> Any:
    """A job in the hands of an engine."""
    engine = Local(processes=1)
    engine.expect(1)
    source = _One(Job(job.name, ("sleep", "30"), job.log))
    queue = Queue(source, engine, retries=0, poll=0.01, grace=1)
    queue.submit_all()
    for entry in queue.entries:
        entry.state = "running"
    return queue.entries


class _One:
    def __init__(self, job: Job) -> None:
        self.jobs = [job]

    def next(self) -> Job | None:
        return self.jobs.pop() if self.jobs else None

    def ended(self, job: Job, status: int | None) -> bool:
        return True

    def failed(self, job: Job, status: int | None) -> None: ...


def test_hyperband_has_as_many_steps_as_folds_have_points() -> None:
    pruner = pruner_of(settings("sweep.pruning.method=hyperband", "sweep.pruning.points=9").sweep, 3)
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    assert pruner._max_resource == 27


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_a_sampler_is_a_function_of_seed_and_number(sampler: str) -> None:
    sweep = settings(f"sweep.sampler={sampler}", "sweep.startup=1").sweep
    space = read_space(LR | {"optimizer.weight_decay": {"float": [0.0, 0.1]}})

    def values(seed: int) -> list[dict[str, Any]]:
        study = optuna.create_study(direction="maximize")
        for number in range(6):
            study.sampler = sampler_of(sweep, space, seed, number)
            trial = study.ask()
            space.draw(trial)
            study.tell(trial, trial.params["optimizer.lr"])
        return [trial.params for trial in study.trials]

    assert values(0) == values(0)
    assert values(0) != values(1)


def test_what_does_not_go_together() -> None:
    numbers = read_space(LR | {"a": {"int": [1, 3]}})
    with pytest.raises(UserError, match="two numbers"):
        require_possible(settings("sweep.sampler=cmaes").sweep, read_space(LR), (DICE,), "segmentation")
    two = (DICE, Objective("seconds", "minimize"))
    with pytest.raises(UserError, match="one objective"):
        require_possible(settings("sweep.sampler=cmaes").sweep, numbers, two, "segmentation")
    with pytest.raises(UserError, match="by one objective"):
        require_possible(settings("sweep.pruning.method=median").sweep, numbers, two, "segmentation")
    with pytest.raises(UserError, match="validation's dice"):
        other = (Objective("hd95_mm", "minimize"),)
        require_possible(settings("sweep.pruning.method=median").sweep, numbers, other, "segmentation")


def test_a_misspelled_objective() -> None:
    config = settings("sweep.objectives=[{metric: dize}]")
    with pytest.raises(UserError, match="dize") as caught:
        objectives_of(config, config.sweep.objectives)
    assert "did you mean dice?" in str(caught.value)


def test_addresses_of_storages() -> None:
    assert storage_address(None) is None
    with pytest.raises(UserError, match="password") as caught:
        storage_address("postgresql://me:secret@host/sweeps")
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="no address of a PostgreSQL database"):
        storage_address("mysql://host/sweeps")


def test_a_folder_is_begun_once(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    tree = {"seed": 0, "sweep": {"trials": 3, "space": "lr"}, "folds": {"run": None}}
    begun = folder.begin(tree, ["seed=0"], [tmp_path], "study.db", "sweep")
    more = {**tree, "sweep": {"trials": 9, "space": "lr"}}
    assert folder.begin(more, ["seed=0"], [tmp_path], "study.db", "sweep") == begun
    for changed in ({**tree, "seed": 1}, {**tree, "folds": {"run": [0]}}):
        with pytest.raises(UserError, match="differ from those of the sweep"):
            folder.begin(changed, [], [tmp_path], "study.db", "sweep")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        SweepFolder(tmp_path / "full").begin(tree, [], [tmp_path], "study.db", "sweep")


def test_claims_are_held_by_one(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    (tmp_path / "jobs").mkdir()
    claim = folder.claim(7)
    assert claim.path.name == f"{trial_name(7)}.lock"
    assert claim.acquire(0)
    assert not folder.claim(7).acquire(0)
    claim.release()
    assert folder.claim(7).acquire(0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep"], "says nothing to draw"),
        (["sweep", "resume=nowhere"], "not the folder of a sweep"),
        (["sweep", "resume=auto"], "output=FOLDER"),
        (["sweep", "sweep.space=lr", "tracking.uri=http://me:secret@host"], "holds a password"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "data.phantom.patients=3", f"cache={tmp_path / 'cache'}"]) == 2
    assert said in (error := capsys.readouterr().err)
    assert "secret" not in error
