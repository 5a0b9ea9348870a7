"""What stands below ``hydra:`` in a shared configuration cannot run code, and names no files outside of its folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config.compose import ConfigurationMistakes, compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.errors import UserError

HEAD = "# @package _global_\n"


def experiment(folder: Path, text: str, name: str = "shared") -> Path:
    (folder / "experiment").mkdir(exist_ok=True)
    (folder / "experiment" / f"{name}.yaml").write_text(HEAD + text)
    return folder


def said(folder: Path, *overrides: str) -> str:
    """The mistakes of an experiment, as text."""
    with pytest.raises(UserError) as caught:
        validate(compose("train", ["experiment=shared", *overrides], config_dirs=[folder]), TrainConfig)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("callbacks: {x: {_target_: shutil.copyfile, src: a, dst: b}}", "hydra.callbacks.x._target_"),
        ("callbacks: {x: {_target_: '${name}'}}", "hydra.callbacks.x._target_"),
        ("job_logging: {handlers: {x: {(): os.mkdir, path: MARK}}}", "hydra.job_logging.handlers.x.()"),
        ("hydra_logging: {handlers: {x: {class: subprocess.Popen}}}", "hydra.hydra_logging.handlers.x.class"),
        ("job_logging: {handlers: {x: {stream: 'ext://os.environ'}}}", "hydra.job_logging.handlers.x.stream"),
    ],
)
@pytest.mark.parametrize("flag", [[], ["--multirun"], ["--cfg", "job"]])
def test_a_hydra_section_that_could_run_code_is_refused(
    text: str, key: str, flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(tmp_path, f"hydra:\n  {text.replace('MARK', str(tmp_path / 'mark'))}\n")
    overrides = [*flag, "--config-dir", str(tmp_path), "experiment=shared", f"output={tmp_path / 'run'}"]
    assert main(["train", *overrides]) == 2
    printed = "".join(capsys.readouterr())
    assert f"{key}: " in printed
    assert "it could run code" in printed
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "run").exists()


def test_a_hydra_section_that_is_hydras_own_is_fine(tmp_path: Path) -> None:
    text = "hydra:\n  sweep: {dir: sweeps}\n  job_logging: {handlers: {x: {class: logging.NullHandler}}}\n"
    composition = compose("train", ["experiment=shared"], config_dirs=[experiment(tmp_path, text)])
    assert composition.mistakes == ()
    assert "hydra" not in (composition.tree or {})


@pytest.mark.parametrize("name", ["/../../{outside}", "../../{outside}", "/{outside}", "/./{outside}"])
def test_a_defaults_list_names_no_file_outside_of_the_folders(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.with_suffix(".yaml").write_text("seed: 99\n")
    (tmp_path / "conf").mkdir()
    folder = experiment(tmp_path / "conf", f"defaults: ['{name.format(outside='outside')}']\n")
    found = said(folder)
    assert "there is no file" in found
    assert "experiment/shared.yaml:2" in found


def test_an_option_of_a_group_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("seed: 99\n")
    (tmp_path / "conf").mkdir()
    folder = experiment(tmp_path / "conf", "defaults: [{override /network: ../../outside}]\n")
    assert "network: there is no option '../../outside'" in said(folder)
    experiment(tmp_path / "conf", "seed: 1\n")
    assert "network has no option '../../outside'" in said(folder, "network=../../outside")


def test_a_secret_below_tracking_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URI", "sqlite:///secret.db")
    inside = "tracking: {uri: '${oc.env:STORE_URI}', experiment: '${tracking.uri}'}\n"
    composition = compose("train", ["experiment=shared"], config_dirs=[experiment(tmp_path, inside)])
    composed = validate(composition, TrainConfig)
    assert composed.model.tracking.uri == "sqlite:///secret.db"  # type: ignore[attr-defined]
    for text in ("name: '${tracking.uri}'\n", "data: {name: 'x ${tracking.uri}'}\n"):
        assert "tracking names an environment variable" in said(experiment(tmp_path, inside + text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("optimizer: {lr: .nan}\n", "optimizer.lr"),
        ("seed: " + "9" * 30 + "\n", "64 bits"),
        ("seed: " + "9" * 5000 + "\n", "a number of 5,000 digits"),
        ("seed: 0x" + "f" * 5000 + "\n", "digits"),
        ('name: "a\\x1b[2J"\n', "control character"),
        ("name: !!set {a, b}\n", "holds a set"),
        ("null: x\n", "the key None"),
    ],
)
def test_values_that_nothing_can_be_done_with(text: str, fault: str, tmp_path: Path) -> None:
    found = said(experiment(tmp_path, text))
    assert fault in found
    assert "shared.yaml" in found


def test_thousands_of_mistakes_are_told_soon(tmp_path: Path) -> None:
    experiment(tmp_path, "".join(f"key_{number}: 1\n" for number in range(20_000)))
    with pytest.raises(ConfigurationMistakes) as caught:
        validate(compose("train", ["experiment=shared"], config_dirs=[tmp_path]), TrainConfig)
    assert "more mistakes of this kind" in str(caught.value)
    assert len(caught.value.errors) < 200


@pytest.mark.parametrize("kind", ["folder", "link to itself"])
def test_an_experiment_that_is_no_file_is_not_passed_over(kind: str, tmp_path: Path) -> None:
    path = experiment(tmp_path, "") / "experiment" / "shared.yaml"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("shared.yaml")
    assert "experiment has no option 'shared'" in said(tmp_path)
