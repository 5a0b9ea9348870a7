"""Rebalancing of a fold: what is drawn, what is said, and which combinations are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.data.case import Dataset, Labels
from pipeline.errors import UserError
from pipeline.training.rebalancing import patch_sampling, rebalance, rebalanced_twice, require_sampling
from tests.experiments import unprepared
from tests.unit.test_folds import case, dataset_of

LUNGS = Dataset("lungs", Path("/data"), "segmentation", (), ("ct",), Labels({1: "lung", 2: "tumour"}), (), 3)
XRAYS = dataset_of([case(number, target="ill" if number < 3 else "well") for number in range(12)])


def settings_of(*overrides: str) -> TrainConfig:
    model = validate(compose("train", list(overrides)), TrainConfig).model
    assert isinstance(model, TrainConfig)
    return model


def test_weighted_cases_by_inverse_frequency() -> None:
    found = rebalance(unprepared(XRAYS, "sampling=weighted"), XRAYS.cases, None)
    assert found.params["case_weights"] == pytest.approx({"ill": 1.5, "well": 0.5})  # 1/3 and 1/9 over their mean
    assert found.line == "cases drawn by class weight: ill 1.5, well 0.5"
    drawn = found.order.cases(0, 4000)
    assert abs(sum(index < 3 for index in drawn) - 2000) < 160  # five standard deviations


def test_balanced_repeats_the_cases_of_the_rare_class() -> None:
    found = rebalance(unprepared(XRAYS, "sampling=balanced"), XRAYS.cases, [1.5, 0.5])
    assert found.line == (
        "class weights in the loss: ill 1.5, well 0.5; classes drawn equally often, cases: ill 3, well 9"
    )
    assert found.params["class_weights"] == [1.5, 0.5]
    drawn = Counter(found.order.cases(0, 18))
    assert [drawn[index] for index in range(12)] == [3] * 3 + [1] * 9


def test_cases_with_replacement_and_nothing_to_tell() -> None:
    found = rebalance(unprepared(XRAYS, "sampling=weighted", "sampling.case_weights=none"), XRAYS.cases, None)
    assert found.line is None
    assert set(Counter(found.order.cases(0, 12)).values()) != {1}
    assert rebalance(unprepared(XRAYS, "sampling=uniform"), XRAYS.cases, None).line is None


def test_weights_by_name_and_those_that_draw_nothing() -> None:
    named = "sampling.case_weights={ill: 7}"
    found = rebalance(unprepared(XRAYS, "sampling=weighted", named), XRAYS.cases, None)
    assert found.params["case_weights"] == {"ill": 7, "well": 1}
    with pytest.raises(UserError, match="nor all zero"):
        given = "sampling.case_weights={ill: 0, well: 0}"
        rebalance(unprepared(XRAYS, "sampling=weighted", given), XRAYS.cases, None)


def test_nnunets_rule_counts_places_in_the_batch_of_all_processes() -> None:
    sampling = patch_sampling(unprepared(LUNGS, "sampling=nnunet", "sampling.batch_size=3"), processes=2)
    assert (sampling.mode, sampling.forced, sampling.batch) == ("weighted", "per_batch", 6)
    weights = "sampling.class_weights={tumour: 3}"
    assert patch_sampling(unprepared(LUNGS, "sampling=foreground", weights), processes=1).class_weights == {2: 3}


@pytest.mark.parametrize(
    ("dataset", "overrides", "fault"),
    [
        (XRAYS, ["sampling=balanced", "sampling.case_weights=inverse"], "sampling.mode=balanced draws cases in turn"),
        (XRAYS, ["sampling=weighted", "sampling.case_weights={il: 2}"], "there is no class il\n    did you mean ill"),
        (XRAYS, ["sampling=nnunet"], "sampling.forced=per_batch is for patches .* classification takes whole images"),
        (LUNGS, ["sampling=uniform", "sampling.class_weights={tumour: 2}"], "sampling.mode=uniform centres none"),
        (LUNGS, ["sampling=foreground", "sampling.class_weights={tumor: 2}"], "did you mean tumour"),
        (LUNGS, ["sampling=foreground", "sampling.class_weights={background: 2}"], "background is the background"),
    ],
)
def test_what_contradicts_itself_or_the_data(dataset: Dataset, overrides: list[str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        require_sampling(settings_of(f"task={dataset.task}", *overrides), dataset)


@pytest.mark.parametrize("sampling", ["uniform", "foreground", "balanced", "weighted", "nnunet"])
def test_every_shipped_sampling_is_allowed(sampling: str) -> None:
    require_sampling(settings_of(f"sampling={sampling}"), LUNGS)
    if sampling != "nnunet":
        require_sampling(settings_of("task=classification", f"sampling={sampling}"), XRAYS)


@pytest.mark.parametrize(
    ("sampling", "loss", "twice"),
    [
        ("balanced", "inverse", True),
        ("weighted", "effective", True),
        ("nnunet", "inverse", False),
        ("foreground", "inverse", False),
        ("balanced", "none", False),
        ("balanced", "[1,2]", False),
    ],
)
def test_sampler_and_loss_at_full_strength_warn(sampling: str, loss: str, twice: bool) -> None:
    said = rebalanced_twice(settings_of(f"sampling={sampling}", f"loss.class_weights={loss}"))
    assert (said is not None) == twice
    if said is not None:
        assert "set loss.class_weights=none" in said
