"""The group ``augmentation``: replaces the transforms file's random transforms, in any experiment, in 2D and 3D."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.conf_dir import conf_dir
from pipeline.config.build import fill_derived
from pipeline.config.compose import compose
from pipeline.config.schema import TrainConfig
from pipeline.config.validate import validate
from pipeline.errors import UserError
from pipeline.training.augmentation import batch_augmentation, sample_augmentation

CHOICES = sorted(file.stem for file in (conf_dir() / "augmentation").glob("*.yaml"))
EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))


def transforms(*overrides: str, spatial_dims: int = 3, spacing: float = 1.0) -> dict[str, Any]:
    """The resolved section; ``spacing``: mm of the last axis, the others have 1."""
    tree = validate(compose("train", list(overrides)), TrainConfig).tree
    values = [*[1.0] * (spatial_dims - 1), spacing]
    sides = {"axes": [0], "paired": False, "swaps": []}
    derived = {"spatial_dims": spatial_dims, "spacing": values, "sides": sides}
    section: dict[str, Any] = fill_derived(tree, derived)["transforms"]
    return section


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_keeps_its_own_augmentation(experiment: str) -> None:
    section = transforms(f"experiment={experiment}")
    assert section["augmentation"]
    assert section["batch_augmentation"] == []


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_choice_replaces_it_and_leaves_the_rest(experiment: str, choice: str) -> None:
    own = transforms(f"experiment={experiment}")
    section = transforms(f"experiment={experiment}", f"augmentation={choice}")
    assert section["augmentation"] == []
    assert bool(section["batch_augmentation"]) == (choice != "none")
    assert section["preprocessing"] == own["preprocessing"]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(("shape", "spacing"), [((16, 20), 1.0), ((12, 16, 10), 1.0), ((16, 16, 6), 5.0)])
def test_a_choice_augments(choice: str, shape: tuple[int, ...], spacing: float) -> None:
    section = transforms(f"augmentation={choice}", spatial_dims=len(shape), spacing=spacing)
    augment = batch_augmentation(section, ())
    assert sample_augmentation(section, ()) == []
    rng = np.random.default_rng(0)
    batch = {
        "image": torch.from_numpy(rng.normal(size=(12, 1, *shape)).astype(np.float32)),
        "label": torch.from_numpy(rng.integers(0, 3, size=(12, 1, *shape)).astype(np.uint8)),
        "seed": torch.arange(12),
    }
    before = {key: value.clone() for key, value in batch.items()}
    augment(batch)
    assert batch["image"].isfinite().all()
    changed = [not torch.equal(a, b) for a, b in zip(batch["image"], before["image"], strict=True)]
    assert any(changed) == (choice != "none")


def test_upright_is_nnunets_but_for_what_turns_patients_round() -> None:
    ours, theirs = transforms("augmentation=upright"), transforms("augmentation=nnunet")
    assert (ours.pop("mirror_axes"), theirs.pop("mirror_axes")) == ("left_right", "auto")
    assert (ours.pop("plane_rotation"), theirs.pop("plane_rotation")) == (30, 180)
    for section, axes, angle in ((ours, "left_right", 30), (theirs, "auto", 180)):
        assert section["batch_augmentation"][-1].pop("axes") == axes
        assert section["batch_augmentation"][0].pop("plane_rotation") == angle
    assert ours == theirs
    chosen = transforms("augmentation=upright", "transforms.mirror_axes=[1, 2]")
    assert chosen["batch_augmentation"][-1]["axes"] == [1, 2]


@pytest.mark.parametrize("given", ["mirror_axes=auto", "mirror_axes=[0]", "plane_rotation=10"])
def test_what_no_transform_refers_to_is_refused(given: str) -> None:
    for augmentation in ("nnunet", "upright"):
        key, _, value = given.partition("=")
        assert str(transforms(f"augmentation={augmentation}", f"transforms.{given}")[key]).replace(" ", "") == value
    for augmentation in ("light", "none"):
        with pytest.raises(UserError, match="no transform of this augmentation uses it"):
            transforms(f"augmentation={augmentation}", f"transforms.{given}")
    last = "transforms.batch_augmentation.8.axes=[1, 2]"  # the file's own keys may go unused
    assert transforms("augmentation=nnunet", last)["batch_augmentation"][-1]["axes"] == [1, 2]
    assert transforms("augmentation=upright", "transforms.batch_augmentation=[]")["batch_augmentation"] == []


def test_the_values_of_nnunet() -> None:
    """Isensee et al. 2021, as nnU-Net v2 has them."""
    nodes = transforms("augmentation=nnunet")["batch_augmentation"]
    names = [node["_target_"].rpartition(".")[2] for node in nodes]
    assert names == ["RandomSpatial", "RandomNoise", "RandomBlur", "RandomBrightness", "RandomContrast",
                     "RandomLowResolution", "RandomGamma", "RandomGamma", "RandomMirror"]  # fmt: skip
    assert [node.get("prob", node.get("rotation_prob")) for node in nodes] == [
        0.2, 0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3, 0.5
    ]  # fmt: skip
    assert nodes[0]["scale_prob"] == 0.2


def test_one_value_is_changed_from_the_command_line() -> None:
    section = transforms("augmentation=nnunet", "transforms.batch_augmentation.8.axes=[1,2]")
    assert batch_augmentation(section, ()).transforms[8].axes == (1, 2)  # type: ignore[attr-defined]


def test_a_transform_in_the_wrong_list_is_named() -> None:
    of_a_sample = [{"_target_": "monai.transforms.RandFlipd", "keys": ["image"]}]
    with pytest.raises(UserError, match=r"transforms\.batch_augmentation\.0: RandFlipd does not work on batches"):
        batch_augmentation({"batch_augmentation": of_a_sample}, ())
    of_a_batch = [{"_target_": "pipeline.transforms.RandomMirror", "prob": 0.5}]
    with pytest.raises(UserError, match=r"transforms\.augmentation\.0: RandomMirror works on batches"):
        sample_augmentation({"augmentation": of_a_batch}, ())


def test_a_misspelled_parameter_is_found_before_anything_is_built() -> None:
    with pytest.raises(UserError, match="RandomMirror has no parameter 'axis'"):
        transforms("augmentation=nnunet", "+transforms.batch_augmentation.8.axis=[1,2]")
