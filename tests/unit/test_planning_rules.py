"""The rules of planning, against numbers worked out by hand and against published plans of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest

from pipeline.conf_dir import conf_dir
from pipeline.config.schema_planning import Planning
from pipeline.config.yaml_files import read_yaml
from pipeline.errors import UserError
from pipeline.networks.topology import plan_kernels, plan_strides
from pipeline.planning.document import Chosen
from pipeline.planning.low_resolution import low_resolution
from pipeline.planning.memory import feature_values
from pipeline.planning.patch import Patch, divisors, plan_batch, plan_patch
from pipeline.planning.spacing import nonzero_share, plan_resolution, why_spacing
from pipeline.planning.validation import validation_section
from tests.fingerprints import fingerprint

RULES = Planning.model_validate_json(
    json.dumps(read_yaml(conf_dir() / "planning" / "nnunet.yaml").content["planning"]), strict=True
)
ONE, TWO = (1, 1, 1), (2, 2, 2)


def test_the_spacing_is_the_median() -> None:
    found = plan_resolution(fingerprint([1.0, 0.8, 0.8], [100, 100, 100], thin={0: 0.5}), RULES)
    assert found.spacing == (1.0, 0.8, 0.8)
    assert found.coarse is None
    assert found.shape == (100, 100, 100)


def test_a_coarse_axis_gets_the_tenth_percentile() -> None:
    """Voxels over 3 times as long (5 > 3 x 0.8) and under a third as many (30 x 3 < 200)."""
    thin = fingerprint([0.8, 0.8, 5.0], [200, 200, 30], thin={2: 2.5})
    found = plan_resolution(thin, RULES)
    assert found.spacing == (0.8, 0.8, 2.5)
    assert found.coarse == 2
    assert found.shape == (200, 200, 60)
    why = why_spacing(thin, RULES, found.coarse, (2, 0, 1))
    assert why.startswith("median of 100 cases (5 x 0.8 x 0.8 mm); S is coarse")
    assert "10th percentile, 2.5" in why


@pytest.mark.parametrize(
    ("spacing", "shape", "thin", "target"),
    [
        ([0.8, 0.8, 5.0], [200, 200, 30], 0.5, 0.8),  # never below the other axes
        ([0.8, 0.8, 5.0], [200, 200, 70], 2.5, 5.0),  # voxels enough: 70 x 3 > 200
        ([0.8, 0.8, 2.4], [200, 200, 30], 1.0, 2.4),  # not over three times as long
    ],
)
def test_limits_of_a_coarse_axis(spacing: list[float], shape: list[int], thin: float, target: float) -> None:
    assert plan_resolution(fingerprint(spacing, shape, thin={2: thin}), RULES).spacing[2] == target


def test_the_median_image_is_that_inside_the_crop() -> None:
    found = fingerprint([1.0, 1.0, 2.0], [100, 100, 50], cropped=[80, 90, 50])
    assert plan_resolution(found, RULES).shape == (80, 90, 50)
    assert nonzero_share(found) == pytest.approx(0.72)


def test_pictures_have_no_coarse_axis() -> None:
    assert plan_resolution(fingerprint([1.0, 1.0], [300, 90], unit="px"), RULES).spacing == (1.0, 1.0)


def test_feature_values_by_hand() -> None:
    """8x8x8 in two stages: 2 + 2 convolutions and a transposed one of 32 at 512 voxels, 2 of 64 at 64, 3 logits."""
    values = feature_values((8, 8, 8), (ONE, TWO), 3, RULES.reference)
    assert values == 5 * 32 * 512 + 2 * 64 * 64 + 3 * 512
    widest = feature_values((64,) * 2, ((1, 1), *((2, 2),) * 5), 1, RULES.reference)
    grids = [(64 // 2**stage) ** 2 for stage in range(6)]
    assert widest == 5 * sum(32 * 2**i * n for i, n in enumerate(grids[:5])) + 2 * 512 * grids[5] + 64**2


def test_feature_values_as_nnunet_counts_them() -> None:
    """What ``PlainConvUNet.compute_conv_feature_map_size`` gives."""
    flat = [ONE, (2, 2, 1), (2, 2, 1), TWO, TWO, (2, 2, 1), (2, 2, 1)]
    assert feature_values((40, 56, 40), (ONE, TWO, TWO, TWO), 3, RULES.reference) == 19_174_400
    assert feature_values((128, 128, 128), (ONE, *[TWO] * 5), 4, RULES.reference) == 454_893_568
    assert feature_values((256, 320, 20), tuple(flat), 2, RULES.reference) == 481_676_800
    assert feature_values((256, 256), ((1, 1), *[(2, 2)] * 6), 2, RULES.reference) == 20_627_456


@pytest.mark.parametrize("plan", json.loads((Path(__file__).parent / "nnunet_plans.json").read_text()),
                         ids=lambda plan: "x".join(map(str, plan["shape"])))  # fmt: skip
def test_plans_of_nnunet(plan: dict[str, Any]) -> None:
    """Patch, batch, strides and kernels that nnU-Net v2.8's planner gives for the same spacing, image and memory.

    Its count of feature values, which builds a network at every step, was replaced by the formula tested above.
    """
    patch = plan_patch(plan["spacing"], plan["shape"], 2, RULES, plan["memory_gb"])
    assert list(patch.size) == plan["patch"]
    assert plan_batch(patch, plan["shape"], plan["cases"], RULES)[0] == plan["batch"]
    assert [list(step) for step in patch.strides] == plan["strides"]
    assert [list(kernel) for kernel in plan_kernels(plan["spacing"], patch.strides)] == plan["kernels"]


PUBLISHED = [
    # Isensee et al. 2021 and plans of nnU-Net v2, axes x, y, z:
    # median image (voxels), spacing (mm), cases, patch, batch
    ("Task04_Hippocampus", (36, 50, 35), (1.0, 1.0, 1.0), 260, (40, 56, 40), 9),
    ("Task01_BrainTumour", (138, 170, 138), (1.0, 1.0, 1.0), 484, (128, 128, 128), 2),
    ("Task05_Prostate", (320, 320, 20), (0.625, 0.625, 3.6), 32, (256, 320, 20), 2),
    ("Task09_Spleen", (512, 512, 187), (0.79, 0.79, 1.6), 41, (160, 192, 64), 2),
    ("Task06_Lung", (512, 512, 252), (0.785, 0.785, 1.24), 63, (160, 192, 80), 2),
]


@pytest.mark.parametrize(("shape", "spacing", "cases", "size", "batch"), [row[1:] for row in PUBLISHED],
                         ids=[row[0] for row in PUBLISHED])  # fmt: skip
def test_published_patches(
    shape: tuple[int, ...], spacing: tuple[float, ...], cases: int, size: tuple[int, ...], batch: int
) -> None:
    patch = plan_patch(spacing, shape, 3, RULES, 8.0)
    assert patch.size == size
    assert patch.values * 2 <= patch.capacity == 1120e6
    assert plan_batch(patch, shape, cases, RULES)[0] == batch


def test_hippocampus_has_three_halvings() -> None:
    patch = plan_patch((1.0, 1.0, 1.0), (36, 50, 35), 3, RULES, 8.0)
    assert patch.strides == (ONE, TWO, TWO, TWO)
    assert patch.first == patch.size == (40, 56, 40)


def test_the_batch_covers_five_per_cent_of_the_data() -> None:
    patch = plan_patch((1.0, 1.0, 1.0), (36, 50, 35), 3, RULES, 8.0)
    batch, why = plan_batch(patch, (36, 50, 35), 200, RULES)
    assert batch == round(36 * 50 * 35 * 200 * 0.05 / (40 * 56 * 40)) == 7
    assert "7 by 5% of the voxels of 200 cases" in why
    assert plan_batch(patch, (36, 50, 35), 20, RULES)[0] == 2
    assert plan_batch(patch, (36, 50, 35), 5000, RULES)[0] == round(1120e6 / patch.values)


@pytest.mark.parametrize("memory", [2.0, 4.0, 8.0, 24.0, 80.0])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((512, 512, 252), (0.785, 0.785, 1.24)), ((320, 320, 20), (0.625, 0.625, 3.6)), ((2000, 2500), (1.0, 1.0)),
     ((128, 128, 12), (0.7, 0.7, 2.0)), ((40, 300, 9), (1.0, 3.0, 0.5))],
)  # fmt: skip
def test_a_patch_fits_its_memory_and_divides(shape: tuple[int, ...], spacing: tuple[float, ...], memory: float) -> None:
    patch = plan_patch(spacing, shape, 3, RULES, memory)
    dims = len(shape)
    assert patch.values * 2 <= {2: 12 * 85e6, 3: 2 * 560e6}[dims] * memory / 8
    assert patch.strides == plan_strides(patch.size, spacing, 64)
    assert all(extent % step == 0 for extent, step in zip(patch.size, divisors(patch.strides), strict=True))


def test_more_memory_gives_larger_patches() -> None:
    sizes = [prod(plan_patch((0.8, 0.8, 1.0), (512, 512, 300), 2, RULES, gb).size) for gb in (2, 4, 8, 16, 32)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_a_step_holds_no_more_voxels_than_the_regime_allows() -> None:
    patch = plan_patch((0.8, 0.8, 1.0), (512, 512, 300), 2, RULES, 8.0, 1_000_000)
    batch, _ = plan_batch(patch, (512, 512, 300), 100, RULES, 1_000_000)
    assert batch * prod(patch.size) <= 1_000_000


@pytest.mark.parametrize(
    ("spacing", "shape", "most"),
    [
        ((1.5625, 1.5625, 10.0), (237, 208, 9), 400_000),
        ((0.625, 0.625, 3.6), (320, 320, 20), 200_000),
        ((0.703, 0.703, 1.25), (128, 128, 8), 200_000),
        ((1.0, 1.0, 1.0), (35, 50, 36), 200_000),
        ((1.0, 1.0), (250, 300), 524_288),
        ((1.0, 1.0, 1.0), (9, 7, 30), 400_000),
    ],
)
def test_a_small_step_within_the_image(spacing: tuple[float, ...], shape: tuple[int, ...], most: int) -> None:
    """Thin slices too: once few slices are left the other axes are cut."""
    patch = plan_patch(spacing, shape, 3, RULES, 8.0, most, beyond_image=False)
    assert 2 * prod(patch.size) <= most
    assert all(extent <= image for extent, image in zip(patch.size, shape, strict=True))
    assert all(extent >= min(8, image) for extent, image in zip(patch.size, shape, strict=True))
    assert all(extent % step == 0 for extent, step in zip(patch.size, divisors(patch.strides), strict=True))


def test_the_hippocampus_without_padding() -> None:
    patch = plan_patch((1.0, 1.0, 1.0), (35, 50, 36), 3, RULES, 8.0, 400_000, beyond_image=False)
    assert (patch.size, patch.first) == ((32, 48, 32), (40, 56, 40))


def test_too_little_memory_is_named() -> None:
    with pytest.raises(UserError, match=r"plan\.memory_gb=0\.0001: 2 patches of .* do not fit"):
        plan_patch((1.0, 1.0, 1.0), (64, 64, 64), 2, RULES, 0.0001)


def test_a_low_resolution_stage() -> None:
    """nnU-Net gives lung CTs one (its patch holds 4 % of them), and the hippocampus none."""

    def patch_of(spacing: Sequence[float], shape: Sequence[int]) -> Patch:
        return plan_patch(spacing, shape, 3, RULES, 8.0)

    lungs = low_resolution((0.785, 0.785, 1.24), (512, 512, 252), patch_of, RULES)
    assert lungs.worth
    assert "holds 4% of the median image of 512 x 512 x 252 voxels" in lungs.words((0, 1, 2))
    assert "of 252 x 512 x 512 voxels" in lungs.words((2, 1, 0))
    assert prod(lungs.patch) >= 0.25 * prod(lungs.shape) > 0.25 * prod(lungs.patch)
    size = [512 * 0.785, 512 * 0.785, 252 * 1.24]  # mm, which stay
    assert [n * mm for n, mm in zip(lungs.shape, lungs.spacing, strict=True)] == pytest.approx(size, rel=0.01)
    small = low_resolution((1.0,) * 3, (36, 50, 35), patch_of, RULES)
    assert (small.worth, small.spacing, small.shape) == (False, (1.0,) * 3, (36, 50, 35))
    assert "holds 100% of the median image" in small.words((0, 1, 2))


def validation(shape: Sequence[int], patch: Sequence[int]) -> dict[str, Any]:
    found = validation_section(fingerprint([2.0] * 3, shape), RULES, [2.0] * 3, patch, 2, 50)
    return {key: chosen.value for key, chosen in found.items() if isinstance(chosen, Chosen)}


def test_validation_takes_a_tenth_of_the_time() -> None:
    """300 windows are an epoch: 2 x 50 patches, of which a training step takes three times as long."""
    assert validation([50] * 3, [50] * 3) == {"validate_every": 5, "validate_cases": 8}
    assert validation([30] * 3, [50] * 3) == {"validate_every": 5, "validate_cases": 8}
    # a window every 25 voxels, the last with the image: 3 per axis; 8 x 27 / 300 = 0.72 epochs, a tenth of 7.2
    assert validation([100] * 3, [50] * 3) == {"validate_every": 8, "validate_cases": 8}
    # 6 per axis, 0.72 epochs a case: one case takes as long as an epoch at most, and two are the least
    assert validation([170] * 3, [50] * 3) == {"validate_every": 15, "validate_cases": 2}
    # 13 per axis, 2 x 2197 / 300 = 14.6 epochs
    assert validation([350] * 3, [50] * 3) == {"validate_every": 147, "validate_cases": 2}
