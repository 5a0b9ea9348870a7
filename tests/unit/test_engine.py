"""The engine: the same numbers and the same checkpoints, a choice that is measured once and remembered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pipeline.training.device as device_module
import pipeline.training.engine as engine_module
from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.schema_engine import Engine as EngineSection
from pipeline.config.validate import validate
from pipeline.errors import UserError
from pipeline.networks.engine import Engine, use_engine
from pipeline.networks.norm_activation import NormActivation
from pipeline.training.engine import (
    candidates,
    cannot_compile,
    compiler,
    has_whole_steps,
    open_precisions,
    require_engine,
)
from pipeline.training.engine_trial import Choice, Trial, choose, fastest
from tests.unit.test_networks import CLASSIFIERS, CONFIGS, load

FAST = Engine("fused", "channels_last")


# --- whole networks ---


@pytest.mark.parametrize("name", [path.stem for path in CONFIGS])
def test_every_network_keeps_its_weights_and_results(name: str) -> None:
    size = (24, 32)
    stock, fast = load(name, size), use_engine(load(name, size), FAST, training=True)
    assert list(stock.state_dict()) == list(fast.state_dict())
    assert [parameter.shape for parameter in stock.parameters()] == [parameter.shape for parameter in fast.parameters()]
    fast.load_state_dict(stock.state_dict())
    image = torch.randn(2, 2, *size)
    expected, found = stock.eval()(image), fast.eval()(image)
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-3)
    assert found.shape == ((2, 3) if name in CLASSIFIERS else (2, 3, *size))


def test_parameters_stay_the_same_objects_in_order() -> None:
    network = load("unet", (24, 32))
    before = list(network.parameters())
    use_engine(network, FAST, training=True)
    assert all(old is new for old, new in zip(before, network.parameters(), strict=True))
    kinds = {type(module) for module in network.modules()}
    assert NormActivation in kinds and nn.InstanceNorm2d not in kinds and nn.LeakyReLU not in kinds


@pytest.mark.parametrize("name", ["unet", "nnunet", "nnunet_resenc"])
def test_training_in_bfloat16_stays_close_to_stock(name: str) -> None:
    """Losses and gradients of a step differ by less than bfloat16 itself moves them."""
    size = (16, 20, 12)
    image = torch.randn(2, 2, *size)

    def gradients(engine: Engine, bf16: bool) -> tuple[float, Tensor]:
        network = use_engine(load(name, size, width=8), engine, training=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = network(image)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        loss = torch.stack([output.float().square().mean() for output in outputs]).sum()
        loss.backward()
        flat = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
        return loss.item(), torch.cat(flat)

    exact, stock, fast = gradients(Engine(), False), gradients(Engine(), True), gradients(FAST, True)
    moved = (stock[1] - exact[1]).norm()
    assert (fast[1] - exact[1]).norm() < 1.5 * moved
    assert fast[0] == pytest.approx(exact[0], rel=0.02)
    same = gradients(FAST, True)
    assert same[0] == fast[0] and torch.equal(same[1], fast[1])


def test_a_recorded_engine_is_read_back() -> None:
    assert Engine.recorded({"norm": "fused", "memory_format": "channels_last", "compile": False}) == FAST
    assert Engine.recorded({"norm": "auto", "memory_format": "auto", "compile": "auto"}) == Engine()
    assert Engine.recorded(None) == Engine()  # a run from before engines


# --- the choice ---


class Net(nn.Sequential):
    """Learns a little."""

    built = 0

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU())
        Net.built += 1


@pytest.fixture
def trial() -> Iterator[Trial]:
    Net.built = 0
    yield Trial((2, 1, 12, 12), torch.device("cpu"), seconds=5.0, steps=3, least_gain=0.0)


def test_the_choice_is_measured_once_and_remembered(trial: Trial, tmp_path: Path) -> None:
    stream = torch.get_rng_state()
    first = choose([Engine(), FAST], Net, trial, tmp_path, {"network": "net"})
    assert first.source == "measured" and set(first.seconds) == {str(Engine()), str(FAST)} and not first.failed
    assert min(first.seconds, key=lambda name: first.seconds[name]) == str(first.engine)
    assert torch.equal(torch.get_rng_state(), stream) and Net.built == 2
    second = choose([Engine(), FAST], Net, trial, tmp_path, {"network": "net"})
    assert (second.engine, second.seconds, second.source) == (first.engine, first.seconds, "remembered")
    assert Net.built == 2
    assert choose([Engine(), FAST], Net, trial, tmp_path, {"network": "other"}).source == "measured"
    assert "times as fast" in first.in_words() and "remembered" in second.in_words()


def test_the_gain_is_told_over_plain_pytorch_in_the_only_precision_measured() -> None:
    chosen = Engine("fused", precision="bf16")
    seconds = {str(Engine(precision="bf16")): 0.5, str(chosen): 0.2}
    assert Choice(chosen, "measured", seconds).in_words().endswith("(measured, 2.50 times as fast as plain PyTorch)")
    assert "2.00 times" in Choice(chosen, "measured", seconds | {str(Engine()): 0.4}).in_words()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"engine": "warp", "seconds": {}, "failed": {}}'])
def test_a_damaged_memory_is_measured_again(trial: Trial, tmp_path: Path, text: str) -> None:
    choose([Engine(), FAST], Net, trial, tmp_path, {})
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    assert choose([Engine(), FAST], Net, trial, tmp_path, {}).source == "measured"
    assert json.loads(file.read_text())["measured_under"]["batch"] == [2, 1, 12, 12]


def test_a_given_engine_is_not_measured(trial: Trial, tmp_path: Path) -> None:
    choice = choose([FAST], Net, trial, tmp_path / "memory", {})
    assert (choice.engine, choice.source, Net.built) == (FAST, "given", 0)
    assert not (tmp_path / "memory").exists()


def test_a_candidate_that_fails_is_left_out(trial: Trial, tmp_path: Path) -> None:
    class Stubborn(Net):
        def forward(self, image: Tensor) -> Tensor:
            if isinstance(self[1], NormActivation):
                raise RuntimeError("no kernel")
            result: Tensor = super().forward(image)
            return result

    choice = choose([Engine(), FAST], Stubborn, trial, tmp_path, {})
    assert choice.engine == Engine() and choice.failed == {str(FAST): "RuntimeError: no kernel"}


def test_a_trial_in_which_all_fail_is_not_remembered(trial: Trial, tmp_path: Path) -> None:
    choice = choose([Engine(), FAST], lambda: nn.Conv2d(3, 3, 3), trial, tmp_path, {})  # the batch has one channel
    assert choice.engine == Engine() and len(choice.failed) == 2
    assert list(tmp_path.iterdir()) == []


def test_time_limits_the_trial(trial: Trial, tmp_path: Path) -> None:
    short = Trial(trial.batch, trial.device, seconds=1e-6, steps=3, least_gain=0.0)
    choice = choose([Engine(), FAST], Net, short, tmp_path, {})
    assert choice.engine == Engine() and choice.failed == {str(FAST): "out of time"}


def test_a_less_plain_engine_must_be_worth_it() -> None:
    assert fastest({"plain": 1.0, "fast": 0.98}, 0.03) == "plain"
    assert fastest({"plain": 1.0, "fast": 0.96, "faster": 0.95}, 0.03) == "fast"


def section(**values: Any) -> EngineSection:
    plain = {"norm": "auto", "memory_format": "auto", "compile": "auto", "keep_memory": True, "oom": "stop"}
    plain["augment"] = "auto"
    return EngineSection(**{**plain, "trial_seconds": 1.0, "trial_steps": 1, "least_gain": 0.0, **values})


def faults(keep: bool) -> int:
    """Page faults of five large tensors, made and freed after four others, in a fresh process."""
    code = f"""
import resource, torch
from pipeline.networks.host_memory import keep_freed_memory
if {keep} and not keep_freed_memory():
    raise SystemExit(3)
for number in range(9):
    if number == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("not glibc")
    return int(done.stdout)


def test_kept_memory_costs_no_page_faults() -> None:
    assert faults(keep=True) < min(100, faults(keep=False))  # 40 MB are 9766 pages, or 20 huge ones


def test_what_is_open_on_a_cpu() -> None:
    everything = candidates(section(), "cpu")
    assert everything[:2] == [Engine(), FAST] and len(everything) == 4
    assert candidates(section(), "cpu", fusable=False) == [Engine(), Engine("stock", "channels_last")]
    assert not any(engine.compile for engine in everything)
    both = candidates(section(), "cpu", ["32", "bf16"])
    assert both[:3] == [Engine(), replace(FAST, precision="bf16"), FAST] and len(both) == 8
    assert candidates(section(norm="fused", memory_format="channels_last"), "cpu") == [FAST]
    assert {engine.norm for engine in candidates(section(), "cuda")} == {"stock"}
    on_gpu = candidates(section(), "cuda")
    assert on_gpu[:2] == [Engine(), Engine("stock", "channels_last", "graphs")] and len(on_gpu) == 4
    assert {engine.compile for engine in candidates(section(), "cuda", whole_steps=False)} == {False, True}


@pytest.mark.parametrize(
    ("asked", "device", "bf16", "recorded", "precisions"),
    [
        ("auto", "cpu", True, None, ["32", "bf16"]),
        ("auto", "cpu", False, None, ["32"]),
        ("auto", "cuda", True, None, ["bf16"]),
        ("auto", "cpu", True, {"norm": "stock"}, ["bf16"]),  # by a run from before it was measured
        ("auto", "cpu", True, {"precision": "32"}, ["32"]),
        ("auto", "cpu", False, {"precision": "bf16"}, ["bf16"]),
        ("32", "cpu", True, {"precision": "bf16"}, ["32"]),
        ("bf16", "cpu", False, None, ["bf16"]),
    ],
)
def test_which_precisions_are_open(
    asked: str,
    device: str,
    bf16: bool,
    recorded: dict[str, str] | None,
    precisions: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (engine_module, device_module):
        monkeypatch.setattr(module, "computes_bf16", lambda device: bf16)
    assert open_precisions(asked, device, recorded) == precisions


def test_a_precision_needs_no_quotes() -> None:
    assert settings_of("trainer.precision=32").trainer.precision == "32"
    with pytest.raises(UserError, match="16: should be 'auto', '32' or 'bf16'"):
        settings_of("trainer.precision=16")


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("c++") is None and compiler() is None
    assert len(candidates(section(), "cpu")) == 4
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        require_engine(settings_of("trainer=cpu", "engine.compile=true"))
    require_engine(settings_of("trainer=cpu", "engine.compile=auto"))


def settings_of(*overrides: str) -> TrainConfig:
    settings = validate(compose("train", ["experiment=lung_unet", *overrides]), TrainConfig).model
    assert isinstance(settings, TrainConfig)
    return settings


def test_graphs_only_where_they_work() -> None:
    assert cannot_compile("graphs", "cuda", True) is None
    assert "need a GPU" in str(cannot_compile("graphs", "cpu", True))
    assert "adds up several" in str(cannot_compile("graphs", "cuda", False))
    assert has_whole_steps(settings_of())
    for other in ("trainer.accumulate=2", "engine.oom=shrink", "trainer=fsdp"):
        assert not has_whole_steps(settings_of(other))
    with pytest.raises(UserError, match="need a GPU"):
        require_engine(settings_of("trainer=cpu", "engine.compile=graphs"))
