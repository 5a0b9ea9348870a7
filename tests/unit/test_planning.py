"""Whole plans of fingerprints made by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import yaml

from pipeline.conf_dir import conf_dir
from pipeline.config.schema_planning import Planning
from pipeline.config.yaml_files import read_yaml
from pipeline.data.fingerprint import Fingerprint
from pipeline.errors import UserError
from pipeline.planning import Budget, Plan, make_plan
from pipeline.planning.axes import axis_order, given_in_order
from pipeline.planning.classification import coarsened
from tests.fingerprints import fingerprint, intensities

RULES = Planning.model_validate_json(
    json.dumps(read_yaml(conf_dir() / "planning" / "nnunet.yaml").content["planning"]), strict=True
)
MINUTES = Budget("15m", 900.0, 8.0, "cpu")
FREE = Budget("none", None, 8.0, "gpu")

HIPPOCAMPUS = fingerprint([1.0] * 3, [36, 50, 35], cases=200, classes=("Anterior", "Posterior"))
PROSTATE = fingerprint(
    [0.625, 0.625, 3.6], [320, 320, 20], cases=32, channels={"T2": intensities(), "ADC": intensities()}
)
CT = intensities(lowest=-1024.0, stored="int16", foreground=(-958.0, 270.0, -158.0, 324.0))
LUNG = fingerprint([0.785, 0.785, 1.24], [512, 512, 252], cases=63, channels={"image": CT})
XRAY = fingerprint([1.0, 1.0], [256, 256], cases=566, unit="px", classes=("lung",))
TB = fingerprint([1.0, 1.0], [2000, 2500], cases=566, unit="px", targets={"normal": 300, "tuberculosis": 266})
NODULES = fingerprint([0.7, 0.7, 2.0], [128, 128, 12], cases=200, targets={"benign": 150, "malignant": 50})
TWO_KINDS = fingerprint([2.0, 2.0, 3.0], [100, 100, 40], cases=14, grid_cases={"PET": 12},
                        channels={"CT": CT, "PET": intensities()})  # fmt: skip
KINDS = {
    "isotropic": HIPPOCAMPUS,
    "anisotropic": PROSTATE,
    "CT": LUNG,
    "2D": XRAY,
    "pictures": TB,
    "crops": NODULES,
    "several modalities": TWO_KINDS,
}


def values(found: Fingerprint, budget: Budget = FREE) -> dict[str, Any]:
    return make_plan(found, RULES, budget).values


def choice(found: Fingerprint, group: str, budget: Budget = FREE) -> str:
    (name,) = [entry[key] for entry in values(found, budget)["defaults"] for key in entry if key.endswith(f"/{group}")]
    return str(name)


def test_many_devices_share_the_batch_of_a_plan() -> None:
    one, two, five = (values(HIPPOCAMPUS, replace(MINUTES, devices=devices))["sampling"] for devices in (1, 2, 5))
    assert {plan["batch_of"] for plan in (one, two, five)} == {"all"}
    assert two["batch_size"] == one["batch_size"] // 2 * 2
    assert five["batch_size"] == max(1, one["batch_size"] // 5) * 5
    assert "2 devices with 8 GB" in replace(MINUTES, devices=2).words


@pytest.mark.parametrize("budget", [MINUTES, FREE], ids=["minutes", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_value_has_a_reason_and_the_file_holds_the_values(kind: str, budget: Budget) -> None:
    plan = make_plan(KINDS[kind], RULES, budget)
    text = plan.text("plan=my data=decathlon")
    assert yaml.safe_load(text) == plan.values
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    bare = [line for line in lines if " # " not in line and not re.fullmatch(r"\s*(- )?[\w/]+:", line)]
    assert bare == []
    assert not any(line.rstrip().endswith("#") or "{" in line.partition(" # ")[2] for line in lines)
    assert text == make_plan(KINDS[kind], RULES, budget).text("plan=my data=decathlon")


def test_the_header_names_data_budget_and_version() -> None:
    from pipeline import __version__

    lines = make_plan(HIPPOCAMPUS, RULES, MINUTES).text("plan=my data=decathlon").splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].endswith("python -m pipeline plan=my data=decathlon")
    header = "\n".join(lines[:6])
    for word in ("by hand", "200 cases", "0123456789abcdef", "15m", "8 GB", "CPU", __version__):
        assert word in header


def test_hippocampus_as_nnunet_plans_it() -> None:
    plan = values(HIPPOCAMPUS)
    assert plan["transforms"]["spacing"] == [1.0, 1.0, 1.0]
    assert plan["sampling"]["patch_size"] == [40, 56, 40]
    assert plan["sampling"]["batch_size"] == 7
    network = plan["network"]
    assert network["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert network["kernel_sizes"] == [[3, 3, 3]] * 4
    assert (network["width"], network["max_width"], network["convs"], network["decoder_convs"]) == (32, 320, 2, 2)
    assert (network["full_resolution"], network["residual"], network["deep_supervision"]) == (True, False, True)
    assert [choice(HIPPOCAMPUS, group) for group in ("optimizer", "schedule", "augmentation", "loss")] == [
        "sgd", "poly", "nnunet", "dice_ce"
    ]  # fmt: skip
    assert (plan["schedule"]["epochs"], plan["sampling"]["batches_per_epoch"]) == (1000, 250)
    assert plan["inference"] == {"overlap": 0.5, "mirror_axes": "auto"}


def test_prostate_has_flat_kernels_first() -> None:
    network = values(PROSTATE)["network"]
    assert network["kernel_sizes"][:2] == [[1, 3, 3], [1, 3, 3]]
    assert network["kernel_sizes"][-1] == [3, 3, 3]
    assert network["strides"][:3] == [[1, 1, 1], [1, 2, 2], [1, 2, 2]]


def test_the_longest_axis_comes_last_where_the_last_is_short() -> None:
    plan = make_plan(PROSTATE, RULES, FREE)
    spacing, patch = plan.values["transforms"]["spacing"], plan.values["sampling"]["patch_size"]
    assert plan.values["transforms"]["preprocessing"][0]["axcodes"] == "SRA"
    assert (spacing.index(max(spacing)), patch.index(min(patch))) == (0, 0)
    assert "mm along S, R, A: median" in plan.text("plan=my")
    assert values(HIPPOCAMPUS)["transforms"]["preprocessing"][0]["axcodes"] == "RAS"
    kept = make_plan(PROSTATE, RULES.model_copy(update={"short_axis": 0}), FREE).values
    assert (kept["sampling"]["patch_size"], patch) == ([256, 320, 20], [20, 256, 320])
    assert given_in_order(kept, kept) == given_in_order(plan.values, plan.values) == ()
    used = {**kept, "sampling": {**kept["sampling"], "patch_size": [128, 128, 16]}, "network": {"width": 8}}
    assert given_in_order(kept, used) == ("sampling.patch_size",)
    for axes, given in (("auto", ()), ([0], ("transforms.mirror_axes",))):  # words are the augmentation's
        assert given_in_order(kept, {**kept, "transforms": {**kept["transforms"], "mirror_axes": axes}}) == given
    assert axis_order([10, 256, 20], 0.5) == (0, 2, 1)
    assert axis_order([128, 100, 50], 0.5) == (2, 1, 0)
    assert axis_order([100, 40, 50], 0.5) == (0, 1, 2)


def test_a_short_budget_on_a_cpu() -> None:
    plan = values(HIPPOCAMPUS, MINUTES)
    network = plan["network"]
    assert network["strides"] == [[1, 1, 1], *[[2, 2, 2]] * 3]
    assert (network["width"], network["full_resolution"], network["residual"]) == (16, True, False)
    assert (plan["schedule"]["budget"], plan["schedule"]["epochs"]) == ("15m", None)
    assert (choice(HIPPOCAMPUS, "optimizer", MINUTES), plan["optimizer"]["lr"]) == ("muon", 0.008)
    assert plan["sampling"]["batches_per_epoch"] == 50
    assert plan["inference"]["mirror_axes"] == "auto"
    assert plan["trainer"]["ema_decay"] == 0.99


@pytest.mark.parametrize(
    ("text", "seconds", "accelerator", "width", "full"),
    [("1m", 60.0, "cpu", 16, False), ("2m", 120.0, "cpu", 16, True), ("1h", 3600.0, "cpu", 16, True),
     ("2h", 7200.0, "cpu", 32, True), ("none", None, "cpu", 32, True),
     ("59m", 3540.0, "gpu", 32, True), ("1h", 3600.0, "gpu", 32, True), ("none", None, "gpu", 32, True)],
)  # fmt: skip
def test_regimes(text: str, seconds: float | None, accelerator: Any, width: int, full: bool) -> None:
    network = values(HIPPOCAMPUS, Budget(text, seconds, 8.0, accelerator))["network"]
    assert (network["width"], network["full_resolution"]) == (width, full)


def test_small_images_have_a_row_of_their_own() -> None:
    assert values(HIPPOCAMPUS, MINUTES)["sampling"]["patch_size"] == [32, 48, 32]
    picture = values(XRAY, MINUTES)
    assert (picture["network"]["width"], picture["network"]["full_resolution"]) == (16, True)
    assert picture["sampling"]["batch_size"] == 4
    for budget in (MINUTES, Budget("4m", 240.0, 8.0, "cpu")):
        assert not values(LUNG, budget)["network"]["full_resolution"]
    crops = fingerprint([0.7, 0.7, 1.25], [128, 128, 8], cases=300)
    plan = values(crops, MINUTES)
    assert (plan["network"]["full_resolution"], plan["sampling"]["patch_size"]) == (True, [8, 128, 128])
    assert plan["sampling"]["batch_size"] == 2
    assert not values(crops, Budget("4m", 240.0, 8.0, "cpu"))["network"]["full_resolution"]
    text = make_plan(HIPPOCAMPUS, RULES, MINUTES).text("")
    assert "regime of cpu from 2 min below 120 min, images of at most 100000 voxels" in text


@pytest.mark.parametrize("minutes", [1, 10, 60, 120, 1000, None])
@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", [(36, 50, 35), (512, 512, 252), (256, 256)])
def test_what_is_chosen_before_the_data_are_read_stays(
    minutes: int | None, accelerator: Any, shape: tuple[int, ...]
) -> None:
    budget = Budget("", None if minutes is None else 60.0 * minutes, 8.0, accelerator)
    before, after = (budget.regime(RULES.segmentation_regimes, known) for known in (None, shape))
    assert (before.optimizer, before.schedule) == (after.optimizer, after.schedule)


def test_a_table_of_regimes_with_a_gap_is_named() -> None:
    rows = [row for row in RULES.segmentation_regimes if row.below_min is not None]
    with pytest.raises(UserError, match="no regime for no limit of time, 8 GB, GPU"):
        make_plan(HIPPOCAMPUS, RULES.model_copy(update={"segmentation_regimes": rows}), FREE)


def test_ct_is_clipped_and_scaled_by_the_foreground() -> None:
    node = values(LUNG)["transforms"]["preprocessing"][-1]
    assert node["_target_"] == "monai.transforms.ScaleIntensityRanged"
    assert (node["a_min"], node["a_max"], node["clip"]) == (-958.0, 270.0, True)
    assert node["b_min"] == pytest.approx((-958 + 158) / 324, abs=1e-5)
    assert node["b_max"] == pytest.approx((270 + 158) / 324, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "stored", "lowest", "is_ct"),
    [("image", "int16", -1024.0, True), ("image", "int32", -600.0, True), ("image", "uint8", 0.0, False),
     ("image", "int16", -499.0, False), ("image", "float32", -1024.0, True),
     ("image", "float32", -499.0, False), ("ct", "float32", -1024.0, True)],
)  # fmt: skip
def test_what_counts_as_ct(name: str, stored: str, lowest: float, is_ct: bool) -> None:
    found = fingerprint([1.0] * 3, [50] * 3, channels={name: intensities(lowest=lowest, stored=stored)})
    node = values(found)["transforms"]["preprocessing"][-1]
    assert node["_target_"].endswith("ScaleIntensityRanged" if is_ct else "NormalizeIntensityd")


def test_float_volumes_with_a_few_dark_values_are_no_ct() -> None:
    """What resampling undershoots is rarer than the air around a patient."""
    for darkest, is_ct in [(-499.0, False), (-501.0, True)]:
        found = intensities(lowest=-1024.0, stored="float32")
        found.image.percentiles["0.5"] = darkest
        node = values(fingerprint([1.0] * 3, [50] * 3, channels={"image": found}))["transforms"]["preprocessing"][-1]
        assert node["_target_"].endswith("ScaleIntensityRanged" if is_ct else "NormalizeIntensityd")


def test_z_score_inside_of_what_is_not_zero() -> None:
    node = values(fingerprint([1.0] * 3, [100] * 3, cropped=[80, 90, 100]))["transforms"]["preprocessing"][-1]
    assert node["nonzero"] is True  # 72 % of the image
    node = values(fingerprint([1.0] * 3, [100] * 3, cropped=[90, 90, 100]))["transforms"]["preprocessing"][-1]
    assert node["nonzero"] is False


def test_a_foreground_of_one_value_is_no_scale() -> None:
    flat = intensities(lowest=-1000.0, stored="int16", foreground=(40.0, 40.0, 40.0, 0.0))
    node = values(fingerprint([1.0] * 3, [50] * 3, channels={"CT": flat}))["transforms"]["preprocessing"][-1]
    assert node["_target_"].endswith("NormalizeIntensityd")


def test_each_modality_its_own_normalisation() -> None:
    plan = values(TWO_KINDS)
    node = plan["transforms"]["preprocessing"][-1]
    assert node["_target_"] == "pipeline.transforms.PerModalityd"
    assert [inner["_target_"].rpartition(".")[2] for inner in node["transforms"]] == [
        "ScaleIntensityRange",
        "NormalizeIntensity",
    ]
    assert plan["sampling"]["modality_dropout"] == 0.15  # PET is there in 12 of 14 cases
    assert "modality_dropout" not in values(PROSTATE)["sampling"]


def test_channels_come_in_the_order_of_the_modalities() -> None:
    """The first case may lack the first modality."""
    channels = {"PET": intensities(), "CT": CT}
    found = fingerprint([2.0] * 3, [50] * 3, channels=channels)
    grids = {name: found.overall.grids[name] for name in ("CT", "PET")}
    found = found.model_copy(update={"overall": found.overall.model_copy(update={"grids": grids})})
    inner = values(found)["transforms"]["preprocessing"][-1]["transforms"]
    assert inner[0]["_target_"].endswith("ScaleIntensityRange")


def test_pictures_stay_on_their_grid() -> None:
    plan = values(XRAY)
    assert plan["transforms"]["spacing"] is None
    assert [node["_target_"] for node in plan["transforms"]["preprocessing"]] == [
        "monai.transforms.NormalizeIntensityd"
    ]
    assert plan["sampling"]["patch_size"] == [256, 256]
    assert plan["network"]["max_width"] == 512
    assert choice(XRAY, "loss") == "dice_ce_batch"


def test_the_size_of_a_classified_picture() -> None:
    plan = values(TB, MINUTES)
    rows, columns = plan["transforms"]["size"]
    assert rows * columns <= 256**2 * 1.01
    assert rows / columns == pytest.approx(2000 / 2500, abs=0.01)
    assert plan["sampling"]["batch_size"] == 16
    assert choice(TB, "sampling", MINUTES) == "uniform"
    assert choice(TB, "network", MINUTES) == "cnn"
    small = fingerprint([1.0, 1.0], [28, 28], cases=5856, unit="px", targets={"normal": 1583, "pneumonia": 4273})
    assert values(small)["transforms"]["size"] == [28, 28]
    assert values(small)["sampling"]["batch_size"] == 64
    assert choice(small, "sampling") == "balanced"


def test_the_size_of_a_classified_volume() -> None:
    plan = values(NODULES, MINUTES)
    size = plan["transforms"]["size"]
    assert size == [12, 128, 128]  # 196608 voxels, fewer than 64^3
    assert plan["transforms"]["spacing"] == [2.0, 0.7, 0.7]
    assert choice(NODULES, "sampling", MINUTES) == "balanced"
    large = values(fingerprint([1.0] * 3, [256] * 3, targets={"a": 10, "b": 10}), MINUTES)
    assert large["transforms"]["size"] == [64] * 3
    assert large["transforms"]["spacing"] == [4.0] * 3


def test_a_thin_volume_is_coarsened_along_its_fine_axes() -> None:
    # 320 x 320 x 20 voxels; 192 mm / sqrt(2.8125) = 114.5 voxels, squared and times 20: 64^3
    assert coarsened([0.6, 0.6, 3.6], [192.0, 192.0, 72.0], 64**3) == pytest.approx((1.6771, 1.6771, 3.6), abs=1e-4)
    assert coarsened([1.0, 2.0, 1.0], [256.0] * 3, 64**3) == pytest.approx((4.0, 4.0, 4.0))
    assert coarsened([1.0, 1.0, 2.0], [64.0] * 3, 64**3) == (1.0, 1.0, 2.0)


def test_an_epoch_of_few_images_has_many_batches() -> None:
    few = values(fingerprint([1.0, 1.0], [64, 64], cases=10, unit="px", targets={"a": 5, "b": 5}), MINUTES)
    assert few["sampling"]["batches_per_epoch"] == 50
    many = values(fingerprint([1.0, 1.0], [28, 28], cases=5856, unit="px", targets={"a": 2928, "b": 2928}), MINUTES)
    assert "batches_per_epoch" not in many["sampling"]


def test_an_epoch_of_many_cases_ends_within_a_short_budget() -> None:
    many = fingerprint([1.0, 1.0], [512, 512], cases=5000, unit="px")
    assert values(many, MINUTES)["sampling"]["batches_per_epoch"] == 250


def test_flips_at_prediction_are_those_of_the_augmentation() -> None:
    """``auto`` spares left and right where classes are a pair, in the augmentation and at prediction alike."""
    lungs = fingerprint([1.0] * 3, [36, 50, 35], classes=("left lung", "right lung", "heart"))
    assert (choice(lungs, "augmentation"), values(lungs)["inference"]["mirror_axes"]) == ("nnunet", "auto")
    assert (choice(lungs, "augmentation", MINUTES), values(lungs, MINUTES)["inference"]["mirror_axes"]) == (
        "upright",
        "auto",
    )


def test_volumes_without_directions_are_turned_every_way() -> None:
    for unit, augmentation in (("mm", "upright"), ("px", "nnunet")):
        assert choice(fingerprint([1.0] * 3, [36, 50, 35], unit=unit), "augmentation", MINUTES) == augmentation
    assert choice(XRAY, "augmentation", MINUTES) == "upright"  # the columns of a picture


def test_the_low_resolution_stage_is_remarked_and_decides_the_loss() -> None:
    text = make_plan(LUNG, RULES, FREE).text("plan=my")
    assert "# low-resolution stage: worth it, but not trained (there is no cascade): the patch holds 4%" in text
    assert choice(LUNG, "loss") == "dice_ce_batch"
    assert "# low-resolution stage: not worth it" in make_plan(HIPPOCAMPUS, RULES, FREE).text("plan=my")


def test_a_short_training_of_large_volumes_works_on_a_coarser_grid() -> None:
    lungs, hours = values(LUNG, MINUTES), values(LUNG, Budget("4h", 14400.0, 8.0, "cpu"))
    assert hours["transforms"]["spacing"] == [0.785, 0.785, 1.24]
    voxels = prod(n * old / new for n, old, new in zip((512, 512, 252), (0.785, 0.785, 1.24),
                                                       lungs["transforms"]["spacing"], strict=True))  # fmt: skip
    patch = prod(lungs["sampling"]["patch_size"])
    assert 2 * patch <= 400_000
    assert 0.099 < patch / voxels < 0.15
    text = make_plan(LUNG, RULES, MINUTES).text("plan=my")
    assert "coarsened, for so short a training sees more of larger voxels: the patch holds 0.2% of the median" in text
    assert "# low-resolution stage: this grid is coarser already" in text
    assert choice(LUNG, "loss", MINUTES) == "dice_ce"
    crops = fingerprint([0.7, 0.7, 1.25], [128, 128, 8], cases=300)
    assert values(crops, MINUTES)["transforms"]["spacing"] == [1.25, 0.7, 0.7]
    assert values(XRAY, MINUTES)["transforms"]["spacing"] is None


def test_an_empty_fingerprint_is_named() -> None:
    bare = HIPPOCAMPUS.model_copy(update={"overall": HIPPOCAMPUS.overall.model_copy(update={"grids": {}})})
    with pytest.raises(UserError, match="no image was measured"):
        make_plan(bare, RULES, FREE)


def test_a_plan_in_one_line() -> None:
    plan: Plan = make_plan(HIPPOCAMPUS, RULES, MINUTES)
    assert plan.line == "spacing 1 x 1 x 1 mm, patch 32 x 48 x 32, batch 4, unet of width 16, muon 0.008, 15m"
