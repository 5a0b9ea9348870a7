"""The draws of the batch transforms: each sample's own, at the probabilities asked for, image and label together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import RandFlip

from pipeline.transforms import (
    BatchAugmentation,
    BatchTransform,
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomLowResolution,
    RandomMirror,
    RandomNoise,
    RandomSpatial,
)
from pipeline.transforms.draws import factor

IGNORED = 255


def spatial(rotation_prob: float = 1.0, scale_prob: float = 1.0, **given: Any) -> RandomSpatial:
    values: dict[str, Any] = {"rotation": [30, 30, 30], "plane_rotation": 180, "scale": [0.7, 1.4]}
    return RandomSpatial(rotation_prob, scale_prob=scale_prob, **(values | given))


def chain() -> list[BatchTransform]:
    """Every transform, mostly drawn."""
    p = 0.8
    return [
        spatial(p, p, spacing=[1.0, 1.0, 1.5]),
        RandomNoise(p, [0.0, 0.1]),
        RandomBlur(p, [0.5, 1.0], channel_prob=0.5),
        RandomBrightness(p, [0.75, 1.25]),
        RandomContrast(p, [0.75, 1.25]),
        RandomLowResolution(p, [0.5, 1.0], channel_prob=0.5),
        RandomGamma(p, [0.7, 1.5], invert=True),
        RandomGamma(p, [0.7, 1.5]),
        RandomMirror(0.5),
    ]


def batch(seeds: list[int], *shape: int, channels: int = 2) -> dict[str, Any]:
    """Samples that follow from their seeds."""
    images, labels = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        images.append(rng.normal(size=(channels, *shape)).astype(np.float32))
        labels.append(rng.choice([0, 1, 2, IGNORED], size=(1, *shape)).astype(np.uint8))
    return {
        "image": torch.from_numpy(np.stack(images)),
        "label": torch.from_numpy(np.stack(labels)),
        "seed": torch.tensor(seeds),
    }


def touched(transform: BatchTransform, samples: int, *shape: int, channels: int = 1) -> list[bool]:
    """Which of many samples the transform changes."""
    drawn = []
    for seed in range(samples):
        given = batch([seed], *shape, channels=channels)
        before = given["image"].clone()
        drawn.append(not torch.equal(BatchAugmentation([transform])(given)["image"], before))
    return drawn


@pytest.mark.parametrize("shape", [(20, 18), (14, 12, 16)])
def test_a_sample_is_augmented_the_same_in_any_batch(shape: tuple[int, ...]) -> None:
    augment = BatchAugmentation(chain())
    seeds = [3, 2**62 + 1, 17, 5]
    together = augment(batch(seeds, *shape))
    for order in ([0], [1], [3, 1], [2, 0, 3, 1]):
        part = augment(batch([seeds[i] for i in order], *shape))
        assert torch.equal(part["image"], together["image"][order])
        assert torch.equal(part["label"], together["label"][order])


@pytest.mark.parametrize(
    ("shape", "spacing", "axes", "about"),
    [((9, 9), None, [1], 0), ((9, 9, 9), [1, 1, 4], [0], 2), ((9, 9, 9), [4, 1, 1], [1], 0)],
)
def test_half_a_turn_spares_left_and_right(
    shape: tuple[int, ...], spacing: list[float] | None, axes: list[int], about: int
) -> None:
    """It and a mirroring along the other axis of the plane would be a mirroring from left to right."""
    sides = {"axes": axes, "paired": True, "swaps": []}
    largest = {}
    for name, given in (("paired", sides), ("single", sides | {"paired": False}), ("elsewhere", sides | {"axes": []})):
        transform = spatial(scale_prob=0.0, spacing=spacing, sides=given)
        plane = [axis for axis in range(len(shape)) if len(shape) == 2 or axis != about]
        angles = []
        for seed in range(200):
            matrix = transform.draw(shape, np.random.default_rng(seed))
            assert matrix is not None
            turn = matrix[np.ix_(plane, plane)]
            angles.append(abs(np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))))
        largest[name] = max(angles)
    assert 25 < largest["paired"] <= 30.001
    assert largest["single"] > 170 and largest["elsewhere"] > 170
    across = spatial(scale_prob=0.0, spacing=[1, 1, 4], sides=sides | {"axes": [2]})  # left to right across the slices
    drawn = [across.draw((9, 9, 9), np.random.default_rng(seed)) for seed in range(200)]
    assert min(matrix[0, 0] for matrix in drawn if matrix is not None) < -0.9


def test_no_generator_is_touched_and_autocast_changes_nothing() -> None:
    augment, seeds = BatchAugmentation(chain()), [1, 2, 3]
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    plain = augment(batch(seeds, 12, 14, 10))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index, arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(batch(seeds, 12, 14, 10))["image"], plain["image"])


def test_what_another_transform_draws_changes_nothing() -> None:
    seeds = list(range(6))
    with_noise = BatchAugmentation([RandomNoise(0.0, [0, 1]), RandomMirror(0.5)])(batch(seeds, 8, 9))
    with_blur = BatchAugmentation([RandomBlur(0.0, [1, 2]), RandomMirror(0.5)])(batch(seeds, 8, 9))
    assert torch.equal(with_noise["image"], with_blur["image"])
    twice = BatchAugmentation([RandomMirror(0.5), RandomMirror(0.5)])(batch(seeds, 8, 9))
    assert not torch.equal(twice["image"], batch(seeds, 8, 9)["image"])  # the second does not undo the first


@pytest.mark.parametrize("label_type", [torch.uint8, torch.int64])
@pytest.mark.parametrize("shape", [(40, 44), (30, 26, 28)])
def test_image_and_label_move_together(shape: tuple[int, ...], label_type: torch.dtype) -> None:
    place = np.indices(shape).reshape(len(shape), -1).T
    block = (np.abs(place - np.array(shape) * [0.4, 0.6, 0.5][: len(shape)]) < 6).all(axis=1).reshape(shape)
    values = np.where(block, IGNORED, 0)
    augment = BatchAugmentation([spatial(), RandomMirror(0.5)])
    seeds = list(range(8))
    given = {
        "image": torch.from_numpy(np.stack([block[None]] * 8)).float() * IGNORED,
        "label": torch.from_numpy(np.stack([values[None]] * 8)).to(label_type),
        "seed": torch.tensor(seeds),
    }
    before = given["label"].clone()
    result = augment(given)
    assert result["label"].dtype == label_type
    assert set(result["label"].unique().tolist()) == {0, IGNORED}
    for image, label, original in zip(result["image"], result["label"], before, strict=True):
        assert not torch.equal(label, original)
        assert ((image > IGNORED / 2) == (label == IGNORED)).float().mean() > 0.99


def test_without_a_label_the_image_is_the_same() -> None:
    augment = BatchAugmentation(chain())
    given = batch([4, 5], 16, 12, 10)
    alone = augment({"image": given["image"].clone(), "seed": given["seed"], "target": torch.tensor([[0], [1]])})
    assert torch.equal(alone["image"], augment(given)["image"])
    assert alone["target"].tolist() == [[0], [1]]


def test_the_number_of_threads_hardly_matters() -> None:
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(BatchAugmentation(chain())(batch([7, 8], 40, 40, 40, channels=1)))
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(results[0]["image"], results[1]["image"], atol=1e-4)
    assert torch.equal(results[0]["label"], results[1]["label"])


PROBABILITIES = {
    "rotation": (spatial(0.2, 0.0), 0.2),
    "scaling": (spatial(0.0, 0.2), 0.2),
    "rotation or scaling": (spatial(0.2, 0.2), 0.36),
    "noise": (RandomNoise(0.1, [0.01, 0.1]), 0.1),
    "blur": (RandomBlur(0.2, [0.5, 1.0]), 0.2),
    "blur of a channel": (RandomBlur(0.4, [0.5, 1.0], channel_prob=0.5), 0.2),
    "brightness": (RandomBrightness(0.15, [0.75, 1.25]), 0.15),
    "contrast": (RandomContrast(0.15, [0.75, 1.25]), 0.15),
    "low resolution": (RandomLowResolution(0.25, [0.5, 0.9]), 0.25),
    "low resolution of a channel": (RandomLowResolution(0.5, [0.5, 0.9], channel_prob=0.5), 0.25),
    "gamma": (RandomGamma(0.3, [0.7, 1.5]), 0.3),
    "mirror": (RandomMirror(0.5), 0.75),
    "mirror of one axis": (RandomMirror(0.5, axes=[1, 2]), 0.5),
}


@pytest.mark.parametrize(("transform", "expected"), PROBABILITIES.values(), ids=PROBABILITIES)
def test_probabilities(transform: BatchTransform, expected: float) -> None:
    count = 500
    drawn = sum(touched(transform, count, 8, 10))
    assert abs(drawn - count * expected) < 4 * np.sqrt(count * expected * (1 - expected))


def test_every_channel_has_its_own_draw() -> None:
    given = batch([11], 10, 12, channels=6)
    given["image"][:] = given["image"][:, :1]
    blurred = BatchAugmentation([RandomBlur(1.0, [0.5, 1.0], channel_prob=0.5)])(given)["image"][0]
    assert 1 < len({tuple(channel.flatten().tolist()) for channel in blurred}) <= 6


def test_factors_lie_as_often_below_one_as_above() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([factor(rng, (0.7, 1.5)) for _ in range(2000)])
    assert drawn.min() >= 0.7 and drawn.max() <= 1.5
    assert abs((drawn < 1).mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    above = np.array([factor(rng, (1.2, 1.5)) for _ in range(200)])
    assert above.min() >= 1.2


def test_angles_and_zoom_stay_in_their_ranges() -> None:
    transform = spatial(1.0, 1.0, rotation=[0, 0, 25])
    angles, zooms = [], []
    for seed in range(400):
        matrix = transform.draw((20, 20, 20), np.random.default_rng(seed))
        assert matrix is not None
        zoom = 1 / matrix[2, 2]
        angles.append(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))
        zooms.append(zoom)
        assert np.allclose(matrix[:, :3] @ matrix[:, :3].T, np.eye(3) / zoom**2)
        assert np.allclose(matrix @ [9.5, 9.5, 9.5, 1], 9.5)  # the centre stays
    assert -25 <= min(angles) < -20 and 20 < max(angles) <= 25
    assert 0.7 <= min(zooms) < 0.75 and 1.35 < max(zooms) <= 1.4


def test_thick_slices_are_turned_in_their_plane() -> None:
    image = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 20, 20, 6).clone()
    image[0, :, 12:] += 100
    before = image.clone()
    label = image.to(torch.uint8)
    for seed in range(8):
        spatial(spacing=[1.0, 1.0, 5.0]).augment(image, label, np.random.default_rng(seed))
    assert torch.allclose(torch.fmod(label, 100).float(), before.fmod(100))
    assert not torch.equal(image, before)
    angles = [
        np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
        for seed in range(100)
        if (matrix := spatial(1.0, 0.0, spacing=[1, 1, 5]).draw((20, 20, 6), np.random.default_rng(seed))) is not None
    ]
    assert max(np.abs(angles)) > 170


def test_thick_slices_all_remain_at_lower_resolution() -> None:
    image = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 16, 16, 8).clone()
    before = image.clone()
    RandomLowResolution(1.0, [0.5, 0.6], spacing=[1, 1, 5]).augment(image, None, np.random.default_rng(0))
    assert torch.allclose(image, before, atol=1e-5)
    RandomLowResolution(1.0, [0.5, 0.6], spacing=[1, 1, 1]).augment(image, None, np.random.default_rng(0))
    assert not torch.allclose(image, before, atol=0.1)


def test_only_the_axes_that_are_named_are_mirrored() -> None:
    original = batch([0], 5, 6, 7, channels=1)["image"][0]
    seen = set()
    for seed in range(60):
        image = original.clone()
        RandomMirror(0.5, axes=[0, 2]).augment(image, None, np.random.default_rng(seed))
        seen |= {axes for axes in [(), (1,), (3,), (1, 3)] if torch.equal(image, original.flip(axes))}
        assert any(torch.equal(image, original.flip(axes)) for axes in [(), (1,), (3,), (1, 3)])
    assert len(seen) == 4


def test_a_batch_of_another_type_and_layout() -> None:
    given = batch([1, 2], 12, 10, 8)
    expected = BatchAugmentation(chain())(batch([1, 2], 12, 10, 8))
    given["image"] = given["image"].to(memory_format=torch.channels_last_3d)
    assert torch.equal(BatchAugmentation(chain())(given)["image"], expected["image"])
    half = BatchAugmentation(chain())({**batch([1, 2], 12, 10, 8), "image": given["image"].half()})
    assert half["image"].dtype == torch.float32


@pytest.mark.parametrize("shape", [(20, 18), (14, 12, 16)])
def test_an_absent_modality_stays_absent_and_spoils_no_other(shape: tuple[int, ...]) -> None:
    """A channel of NaN stands for it."""
    augment, seeds = BatchAugmentation(chain()), list(range(6))
    whole = augment(batch(seeds, *shape))["image"]
    given = batch(seeds, *shape)
    given["image"][:, 1] = torch.nan
    partial = augment(given)["image"]
    assert torch.equal(partial[:, 0], whole[:, 0])
    assert partial[:, 1].isnan().all()


def test_no_transform_changes_nothing() -> None:
    given = batch([1], 4, 4)
    assert BatchAugmentation([])(given) is given
    assert torch.equal(given["image"], batch([1], 4, 4)["image"])


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: RandomNoise(1.5, [0, 1]), "prob 1.5"),
        (lambda: RandomNoise(0.5, [0.2, 0.1]), "std"),
        (lambda: RandomNoise(0.5, [-0.1, 0.1]), "std"),
        (lambda: RandomBlur(0.5, [0.5]), "sigma"),
        (lambda: RandomBlur(0.5, [0.5, 1], channel_prob=-1), "channel_prob"),
        (lambda: RandomLowResolution(0.5, [0.5, 1.5]), "above 1"),
        (lambda: RandomGamma(0.5, [0, 1]), "gamma"),
        (lambda: RandomMirror(0.5, axes=[3]), "axes"),
        (lambda: spatial(padding="reflect"), "padding"),
        (lambda: RandomSpatial(0.2, [30], 180, 0.2, [0.7, 1.4]), "three angles"),
        (lambda: BatchAugmentation([RandFlip(0.5)]), "0: RandFlip does not work on batches"),
    ],
)
def test_wrong_parameters_are_refused(make: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        make()
