from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.cli import main
from pipeline.conf_dir import conf_dir

EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))


def pipeline(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(__file__).resolve().parents[2] / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=120, check=False)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command line prints."""
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["train", "--help"], ["experiment=x", "--help"]])
def test_help_lists_commands_experiments_and_overrides(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for word in ["train", "check", "predict", *EXPERIMENTS, "folds.count=5", "--multirun", "data.root=FOLDER"]:
        assert word in text


def test_help_imports_nothing_heavy_and_is_quick(tmp_path: Path) -> None:
    code = "import sys; from pipeline.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    paths = str(Path(__file__).resolve().parents[2] / "src")
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                             env={**os.environ, "PYTHONPATH": paths}).stderr  # fmt: skip
    for heavy in ("numpy", "torch", "monai", "hydra", "omegaconf", "pydantic", "yaml", "mlflow"):
        assert f"'{heavy}'" not in modules
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        assert pipeline("--help", cwd=tmp_path).returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pipeline {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["trian"], "did you mean train?"),
        (["lung_unet"], "did you mean experiment=lung_unet?"),
        (["train", "lung_unet"], "'lung_unet' is not of the form key=value"),
        (["--experiment=lung_unet"], "a key of the configuration is written experiment=lung_unet"),
        (["--mutlirun"], "did you mean --multirun?"),
        (["--cfg", "jobs"], "invalid choice: 'jobs'"),
        (["predict", "network=unet"], "predict has no group 'network'"),
        (["--config-name", "trian"], "did you mean train?"),
        (["--config-dir", "/no/such/folder"], "no such configuration folder"),
        (["-m", "seed=0,1", "trainer.devices=2"], "would mix with those of another"),
        (["-m", "seed=0,1", "trainer=ddp"], "would mix with those of another"),
        (["-m", "seed=0,1", "output=x"], "names one folder for 2 runs"),
        (["-m", "seed=0,1", "sede=1"], "did you mean seed?"),
        (["predict", "run=a", "input=b"], "output=VALUE"),
        (["experiment=lung_unet", "~network._target_"], "has no _target_, so nothing says what to build"),
        (["experiment=lung_unet", "~loss.function._target_"], "has no _target_, so nothing says what to build"),
        (
            ["experiment=lung_unet", "network._target_=null"],
            "error: network._target_ (command line): _target_ None is not a dotted path",
        ),
    ],
)
def test_a_wrong_command_line(arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "lung_unet" in answer and "lung_unet" not in EXPERIMENTS:
        pytest.skip("the experiment is not shipped")
    assert answer in told(capsys, *arguments)


def test_several_mistakes_are_counted_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "check", "folds.cuont=3", "seeed=1", "data=decathlonn")
    assert text.startswith("3 mistakes in the configuration:\nerror: data=decathlonn (command line): ")
    assert "    did you mean folds.count?\n" in text


def test_a_typo_is_answered_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = ("import sys; from pipeline.cli import main; status = main(['network.foo=1', 'optimizer.lrr=1']);"
            "print(sorted(sys.modules)); sys.exit(status)")  # fmt: skip
    paths = str(Path(__file__).resolve().parents[2] / "src")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
                         env={**os.environ, "PYTHONPATH": paths})  # fmt: skip
    assert ran.returncode == 2
    assert "network.foo" in ran.stderr
    assert "optimizer.lrr" in ran.stderr
    for heavy in ("torch", "monai", "mlflow", "pandas"):
        assert f"'{heavy}'" not in ran.stdout
    assert not list(tmp_path.iterdir())


def test_cfg_and_info_keep_the_meaning_that_hydra_gives_them(tmp_path: Path) -> None:
    shown = pipeline("check", "folds.count=3", "--cfg", "job", "--package", "folds", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("# @package folds\ncount: 3\n")
    shown = pipeline("check", "--cfg", "job", "--resolve", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "count: 5" in shown.stdout
    shown = pipeline("--info", "defaults", "check", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "folds/kfold" in shown.stdout
    assert not list(tmp_path.iterdir())


def test_a_multirun_goes_on_after_a_job_that_fails(tmp_path: Path) -> None:
    ran = pipeline("-m", "seed=2,3", "data=decathlon", "data.root=absent",
                   "hydra.sweep.dir=sweep", cwd=tmp_path)  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.count("error: ") >= 2
    assert ran.stderr.count("absent") >= 2
    assert "Traceback" not in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]
    assert not [path for path in (tmp_path / "sweep").rglob("*") if path.is_file() and path.name != "multirun.yaml"]


def test_configurations_of_ones_own(
    conf: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "own.yaml").write_text("# @package _global_\n# My own:  python -m pipeline experiment=own\nsede: 1\n")
    assert main(["--config-dir", str(mine.parent), "--help"]) == 0
    assert "own" in capsys.readouterr().out
    assert "own.yaml:3): unknown key" in told(capsys, "--config-dir", str(mine.parent), "experiment=own")
    assert "own.yaml:3): unknown key" in told(capsys, f"hydra.searchpath=[file://{mine.parent}]", "experiment=own")
    assert "no option 'own'" in told(capsys, "experiment=own")


HOSTILE = {
    "a system call": ("model:\n  _target_: os.system\n  command: touch MARKER\n", "not allowed"),
    "nested": ("model:\n  _target_: torch.nn.Sequential\n  _args_:\n  - _target_: builtins.eval\n", "not allowed"),
    "torch.hub": ("model:\n  _target_: torch.hub.load\n  repo_or_dir: .\n  source: local\n", "not allowed"),
    "expression": ("model:\n  name: \"$__import__('os').system('touch MARKER')\"\n", "unknown key"),
    "aliases": ("a0: &a0 [x,x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 9)), "too large"),
}


@pytest.mark.parametrize("where", ["name", "experiment"])
@pytest.mark.parametrize(("text", "match"), HOSTILE.values(), ids=HOSTILE)
def test_a_strangers_file(
    where: str, text: str, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "ran"
    folder = tmp_path / "from_a_stranger"
    file = folder / ("evil.yaml" if where == "name" else "experiment/evil.yaml")
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\n" + text.replace("MARKER", str(marker)))
    choice = ["--config-name", "evil"] if where == "name" else ["experiment=evil"]
    answer = told(capsys, "--config-dir", str(folder), *choice)
    assert match in answer
    assert "evil.yaml" in answer
    assert not marker.exists()
