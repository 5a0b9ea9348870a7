"""Losses against values computed by hand, against MONAI's, and for every shape and type they promise."""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import hydra
import monai.losses
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from pipeline.tasks.deep_supervision import DeepSupervision
from pipeline.tasks.losses import (
    BinaryCrossEntropyLoss,
    BrierLoss,
    CrossEntropyLoss,
    DiceCELoss,
    DiceLoss,
    FocalLoss,
    TverskyLoss,
)

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))
SEGMENTATION_ONLY = {"dice", "dice_ce", "tversky"}

# Two images of one voxel each would do; classes 0 and 1 with probabilities (1/4, 3/4) and (1/2, 1/2), truth 1 and 0.
LOGITS = torch.tensor([[0.0, log(3.0)], [0.0, 0.0]])
TARGET = torch.tensor([[1], [0]])


def random_case(*spatial: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, *spatial, generator=generator)
    return logits, torch.randint(0, classes, (2, 1, *spatial), generator=generator)


@pytest.mark.parametrize("weight", [None, [1.0, 3.0]])
@pytest.mark.parametrize(
    ("loss", "first", "second"),
    [
        (CrossEntropyLoss, log(4 / 3), log(2)),
        (BrierLoss, 2 * 0.25**2, 2 * 0.5**2),
        (FocalLoss, 0.25**2 * log(4 / 3), 0.5**2 * log(2)),
        # sigmoid(log 3) = 3/4, sigmoid(0) = 1/2
        (BinaryCrossEntropyLoss, log(2) + log(4 / 3), log(2) + log(2)),
    ],
)
def test_weighted_mean_by_true_class(loss: type, first: float, second: float, weight: list[float] | None) -> None:
    of_first, of_second = (1, 1) if weight is None else (weight[1], weight[0])
    expected = (of_first * first + of_second * second) / (of_first + of_second)
    assert float(loss(weight)(LOGITS, TARGET)) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_equals_torch() -> None:
    logits, target = random_case(4, 5)
    for weight in (None, [0.2, 1.0, 3.0]):
        tensor = None if weight is None else torch.tensor(weight)
        expected = nn.functional.cross_entropy(logits, target[:, 0], weight=tensor)
        assert torch.allclose(CrossEntropyLoss(weight)(logits, target), expected, atol=1e-6)
    expected = nn.functional.cross_entropy(logits, target[:, 0], label_smoothing=0.1)
    assert torch.allclose(CrossEntropyLoss(label_smoothing=0.1)(logits, target), expected, atol=1e-6)


def test_label_smoothing_by_hand() -> None:
    expected = 0.9 * log(4 / 3) + 0.1 * log(4)  # half of 0.2 goes to the wrong class
    loss = CrossEntropyLoss(label_smoothing=0.2)(LOGITS[:1], TARGET[:1])
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_focal_equals_monai_times_classes() -> None:
    logits, target = random_case(4, 5, 3)
    expected = 3 * monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)(logits, target)
    assert torch.allclose(FocalLoss(gamma=2.0)(logits, target), expected, atol=1e-6)
    assert torch.allclose(FocalLoss(gamma=0.0)(logits, target), CrossEntropyLoss()(logits, target), atol=1e-6)


def test_dice_by_hand() -> None:
    # One image of two voxels: foreground probabilities 3/4 and 1/2, truth 1 and 0.
    logits, target = LOGITS.T.reshape(1, 2, 2), TARGET.T.reshape(1, 1, 2)
    assert float(DiceLoss(smooth=0.0)(logits, target)) == pytest.approx(1 - 2 * 0.75 / (1.25 + 1))
    tversky = TverskyLoss(alpha=0.3, beta=0.7, smooth=0.0)(logits, target)
    assert float(tversky) == pytest.approx(1 - 0.75 / (0.75 + 0.3 * 0.5 + 0.7 * 0.25))


def test_batch_dice_by_hand() -> None:
    # The same two voxels as two images: Dice of the whole batch is that of one image; image by image it is another.
    logits, target = LOGITS.reshape(2, 2, 1), TARGET.reshape(2, 1, 1)
    assert float(DiceLoss(smooth=0.0, batch_dice=True)(logits, target)) == pytest.approx(1 - 1.5 / 2.25)
    assert float(DiceLoss(smooth=0.0)(logits, target)) == pytest.approx(((1 - 1.5 / 1.75) + 1) / 2)


def test_dice_weights_classes_by_hand() -> None:
    # Probabilities 1/2, 1/4, 1/4 in both voxels; truth 1 and 2: Dice 0.5 / 1.5 for each of both foreground classes.
    logits = torch.tensor([log(2.0), 0.0, 0.0]).reshape(1, 3, 1).repeat(1, 1, 2)
    both = torch.tensor([1, 2]).reshape(1, 1, 2)
    ones = torch.tensor([1, 1]).reshape(1, 1, 2)
    assert float(DiceLoss([9.0, 1.0, 3.0], smooth=0.0)(logits, both)) == pytest.approx(1 - 1 / 3)
    # Truth 1 in both voxels: Dice 1 / 2.5 of class 1 and 0 of class 2, weighted 1 to 3; the background's is unused.
    expected = (1 * (1 - 0.4) + 3 * 1) / 4
    assert float(DiceLoss([9.0, 1.0, 3.0], smooth=0.0)(logits, ones)) == pytest.approx(expected)
    # Cross entropy of those voxels: log 4 each, whatever the weights.
    combined = DiceCELoss([9.0, 1.0, 3.0], smooth=0.0, dice_factor=2.0, ce_factor=0.5)
    assert float(combined(logits, ones)) == pytest.approx(2 * expected + 0.5 * log(4))


@pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 3)])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_dice_ce_and_its_gradient_equal_monai(spatial: tuple[int, ...], batch_dice: bool) -> None:
    logits, target = random_case(*spatial)
    reference = monai.losses.DiceCELoss(
        to_onehot_y=True, softmax=True, include_background=False, smooth_nr=1e-5, smooth_dr=1e-5, batch=batch_dice
    )
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = DiceCELoss(batch_dice=batch_dice)(ours, target), reference(theirs, target)
    loss.backward()
    expected.backward()
    assert torch.allclose(loss, expected, atol=1e-5)
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_dice_ce_gradient_in_float64(batch_dice: bool) -> None:
    logits, target = random_case(3, 2)
    loss = DiceCELoss(batch_dice=batch_dice, dice_factor=0.7, ce_factor=1.3)
    assert torch.autograd.gradcheck(lambda values: loss(values, target), [logits.double().requires_grad_()])


@pytest.mark.parametrize("batch_dice", [False, True])
def test_dice_ce_without_weights_is_that_with_equal_ones(batch_dice: bool) -> None:
    """Two ways to compute it: in closed form, and by autograd where there are weights."""
    logits, target = random_case(4, 5, 3)
    losses, gradients = [], []
    for weight in (None, [1.0, 1.0, 1.0]):
        values = logits.clone().requires_grad_()
        loss = DiceCELoss(weight, batch_dice=batch_dice, dice_factor=0.7, ce_factor=1.3)(values, target)
        (3 * loss).backward()
        assert values.grad is not None
        losses.append(loss)
        gradients.append(values.grad)
    assert torch.allclose(losses[0], losses[1], atol=1e-6)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-7)


def test_tversky_equals_monai() -> None:
    logits, target = random_case(4, 5, 3)
    reference = monai.losses.TverskyLoss(
        to_onehot_y=True, softmax=True, include_background=False, alpha=0.3, beta=0.7, smooth_nr=1e-5, smooth_dr=1e-5
    )
    assert torch.allclose(TverskyLoss(alpha=0.3, beta=0.7)(logits, target), reference(logits, target), atol=1e-5)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("spatial", [(), (5, 4), (3, 5, 4)])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0]])
def test_every_config(path: Path, spatial: tuple[int, ...], weights: list[float] | None) -> None:
    if not spatial and path.stem in SEGMENTATION_ONLY:
        pytest.skip("for segmentation only")
    tree = OmegaConf.create({"derived": {"class_weights": weights}, "loss": OmegaConf.load(path)})
    loss = hydra.utils.instantiate(OmegaConf.to_container(tree.loss, resolve=True)["function"])
    logits, target = random_case(*spatial)
    values = []
    for kind in (torch.uint8, torch.int64, torch.float32):
        ours = logits.clone().requires_grad_()
        value = loss(ours, target.to(kind))
        value.backward()
        assert value.shape == () and ours.grad is not None and torch.isfinite(ours.grad).all()
        values.append(float(value.detach()))
    assert values[0] == values[1] == values[2] > 0
    # The right answer, said firmly, costs next to nothing.
    classes = torch.arange(3).reshape(1, 3, *(1 for _ in spatial))
    assert float(loss(20.0 * (2 * (classes == target).float() - 1), target)) < 1e-4
    assert not loss.state_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_extreme_logits_stay_finite(path: Path) -> None:
    tree = OmegaConf.create({"derived": {"class_weights": None}, "loss": OmegaConf.load(path)})
    loss = hydra.utils.instantiate(OmegaConf.to_container(tree.loss, resolve=True)["function"])
    _, target = random_case(5, 4)
    logits = torch.where(torch.arange(3).reshape(1, 3, 1, 1) == 0, 1e4, -1e4).repeat(2, 1, 5, 4).requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert torch.isfinite(value) and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_batch_with_only_weightless_classes_has_no_loss() -> None:
    logits, _ = random_case(5, 4)
    target = torch.zeros(2, 1, 5, 4, dtype=torch.uint8)
    assert float(CrossEntropyLoss([0.0, 1.0, 1.0])(logits, target)) == 0.0


def test_deep_supervision_by_hand() -> None:
    target = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]]).reshape(1, 1, 2, 4)
    fine, coarse = torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 1, 2)
    coarse[:, 1] = torch.tensor([-log(3.0), log(3.0)])  # truth is 0 and 1 there: right with probability 3/4
    loss = DeepSupervision(CrossEntropyLoss())
    expected = 2 / 3 * log(2) + 1 / 3 * log(4 / 3)
    assert float(loss([fine, coarse], target)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(fine, target)) == pytest.approx(log(2), rel=1e-5)
    assert float(DeepSupervision(DiceLoss(smooth=0.0))([fine], target.byte())) == pytest.approx(1 - 4 / 8)


def test_wrong_shapes_and_weights_are_refused() -> None:
    logits, target = random_case(5, 4)
    with pytest.raises(ValueError, match="do not fit"):
        DiceCELoss()(logits, target[:, :, :4])
    with pytest.raises(ValueError, match="do not fit"):
        CrossEntropyLoss()(logits, target[:, 0])
    with pytest.raises(ValueError, match="2 class weights for 3 classes"):
        DiceCELoss([1.0, 2.0])(logits, target)
    with pytest.raises(ValueError, match="negative"):
        FocalLoss([1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="foreground"):
        DiceLoss([1.0, 0.0, 0.0])


def test_weights_shift_the_balance_and_not_the_size() -> None:
    logits, target = random_case(5, 4)
    for loss in (CrossEntropyLoss, BrierLoss, FocalLoss, BinaryCrossEntropyLoss, DiceLoss, DiceCELoss):
        assert torch.allclose(loss([7.0, 7.0, 7.0])(logits, target), loss()(logits, target), atol=1e-6)
    assert exp(-float(CrossEntropyLoss([0.0, 1.0])(LOGITS, TARGET))) == pytest.approx(0.75)


ALL_LOSSES = [
    CrossEntropyLoss(),
    CrossEntropyLoss(label_smoothing=0.2),
    BrierLoss(),
    BinaryCrossEntropyLoss(),
    FocalLoss(),
    TverskyLoss(alpha=0.3, beta=0.7),
    DiceLoss(),
    DiceLoss(batch_dice=True),
    DiceCELoss(),
]


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
def test_voxels_that_are_not_valid_change_nothing(loss: nn.Module) -> None:
    logits, target = random_case(6, 5)
    valid = torch.ones(2, 1, 6, 5, dtype=torch.bool)
    valid[:, :, 4:] = False
    other, wrong = logits.clone(), target.clone()
    other[:, :, 4:], wrong[:, :, 4:] = 7.0, 255
    expected = loss(logits[:, :, :4], target[:, :, :4])
    torch.testing.assert_close(loss(other, wrong, valid), expected)
    everywhere = torch.ones(2, 1, 6, 5, dtype=torch.bool)
    torch.testing.assert_close(loss(logits, target, everywhere), loss(logits, target))


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
def test_regions_that_are_not_annotated_change_nothing(loss: nn.Module) -> None:
    logits, _ = random_case(6, 5)
    target = (random_case(6, 5)[0] > 0).float()
    known = torch.ones(2, 3, 6, 5, dtype=torch.bool)
    known[1, 2] = False
    other = logits.clone()
    other[1, 2] = -3.0
    torch.testing.assert_close(loss(other, target, known), loss(logits, target, known))
    assert loss(logits, target, known) != loss(logits, target)


def test_region_losses_equal_values_computed_by_hand() -> None:
    # Region probabilities 3/4 and 1/2 in one voxel; the first region is there, the second is not.
    logits, target = torch.tensor([[[log(3.0)], [0.0]]]), torch.tensor([[[1.0], [0.0]]])
    assert float(CrossEntropyLoss()(logits, target)) == pytest.approx((-log(0.75) - log(0.5)) / 2)
    assert float(BrierLoss()(logits, target)) == pytest.approx((2 * 0.25**2 + 2 * 0.5**2) / 2)
    assert float(DiceLoss(smooth=0.0)(logits, target)) == pytest.approx(((1 - 1.5 / 1.75) + 1) / 2)
    weighted = CrossEntropyLoss([3.0, 1.0])(logits, target)
    assert float(weighted) == pytest.approx((-3 * log(0.75) - log(0.5)) / 4)


def test_dice_of_regions_equals_monai_sigmoid() -> None:
    logits, _ = random_case(6, 5)
    target = (random_case(6, 5)[0] > 0).float()
    theirs = monai.losses.DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, target)
    torch.testing.assert_close(DiceLoss()(logits, target), theirs)


def test_deep_supervision_brings_validity_to_each_grid() -> None:
    target = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid[..., 2:] = False
    fine, coarse = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)
    fine[..., 2:], coarse[..., 1:] = 9.0, 9.0
    fine[:, 0, :, 2:], coarse[:, 0, :, 1:] = -9.0, -9.0
    loss = DeepSupervision(CrossEntropyLoss())([fine, coarse], target, valid)
    assert float(loss) == pytest.approx(log(2.0))
