"""What a mask teaches: regions, ignored voxels, cases that annotate some classes."""

from __future__ import annotations

import pytest
import torch

from pipeline.data.labels import IGNORED, Labels
from pipeline.inference.decision import Decision
from pipeline.tasks.losses import CrossEntropyLoss, DiceLoss
from pipeline.tasks.mask_truth import MaskTruth, add_to_background
from pipeline.tasks.segmentation import dice_per_part, joint_counts

BRAIN = Labels(
    {1: "edema", 2: "core", 3: "enhancing"}, regions={"whole": (1, 2, 3), "tumour": (2, 3), "active": (3,)}, ignore=9
)


def test_regions_become_one_channel_each() -> None:
    index = torch.from_numpy(BRAIN.to_index(torch.tensor([[0, 1, 2, 3, 9]]).numpy()))[None]
    target, valid = MaskTruth(BRAIN)(index, None)
    assert target[0].tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]]
    assert valid is not None and valid[0, 0].tolist() == [True, True, True, True, False]


def test_a_region_that_a_case_does_not_annotate_is_not_valid() -> None:
    label = torch.ones(2, 1, 3, dtype=torch.uint8)
    annotated = torch.tensor([[True, True, True], [True, False, True]])
    _, valid = MaskTruth(BRAIN)(label, annotated)
    assert valid is not None and valid[:, :, 0].tolist() == annotated.tolist()


def test_plain_classes_pass_as_they_are() -> None:
    label = torch.ones(2, 1, 3, dtype=torch.uint8)
    target, valid = MaskTruth(Labels({1: "liver"}))(label, None)
    assert target is label and valid is None


def test_what_a_case_does_not_annotate_joins_its_background() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    annotated = torch.tensor([[True, True, True, True], [True, False, True, False]])
    before, after = torch.softmax(logits, dim=1), torch.softmax(add_to_background(logits, annotated), dim=1)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1, 0], before[1, 0] + before[1, 1] + before[1, 3])
    torch.testing.assert_close(after[1, 2], before[1, 2])
    assert float(after[1, [1, 3]].max()) == 0


def test_a_class_that_is_not_annotated_gets_no_gradient_from_background_voxels() -> None:
    """A network that is sure of the absent class where the mask says background is not punished."""
    logits = torch.full((1, 3, 4), -20.0)
    logits[:, 1] = 20.0
    logits.requires_grad_()
    label = torch.zeros(1, 1, 4, dtype=torch.uint8)
    truth = MaskTruth(Labels({1: "liver", 2: "kidney"}))
    annotated = torch.tensor([[True, False, True]])
    target, valid = truth(label, annotated)
    loss = CrossEntropyLoss()(truth.reduce(logits, annotated), target, valid)
    loss.backward()
    assert float(loss.detach()) < 1e-6
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-6
    assert float(CrossEntropyLoss()(logits.detach(), label)) == pytest.approx(40.0, rel=1e-3)
    assert torch.isfinite(DiceLoss()(truth.reduce(logits, annotated), target, valid))


def test_regions_are_painted_from_the_outermost_to_the_innermost() -> None:
    assert BRAIN.painted == (1, 2, 3)
    probabilities = torch.tensor([[0.9, 0.9, 0.9, 0.1, 0.2], [0.2, 0.8, 0.7, 0.1, 0.9], [0.1, 0.2, 0.6, 0.1, 0.1]])
    decision = Decision(BRAIN.painted, 0.5)
    assert decision.indices(probabilities).tolist() == [1, 2, 3, 0, 2]
    assert decision.indices(torch.logit(probabilities), logits=True).tolist() == [1, 2, 3, 0, 2]
    torch.testing.assert_close(decision.probabilities(torch.logit(probabilities)[None])[0], probabilities)


def test_regions_without_a_class_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="outermost must come first"):
        Labels({1: "a", 2: "b"}, regions={"inner": (2,), "outer": (1, 2)})
    with pytest.raises(ValueError, match="no foreground class"):
        Labels({1: "a"}, regions={"all": (1, 7)})


def test_dice_of_parts_leaves_ignored_voxels_out() -> None:
    prediction = torch.tensor([[1, 1, 2, 3, 0, 3]])
    truth = torch.tensor([[1, 2, 2, 3, 0, IGNORED]])
    joint = joint_counts(prediction, truth, len(BRAIN.names))
    assert int(joint.sum()) == 5
    dice = dice_per_part(joint, BRAIN.parts)
    assert dice.tolist() == pytest.approx([1.0, 2 * 2 / (2 + 3), 1.0])
    empty = dice_per_part(joint_counts(torch.zeros(1, 3).long(), torch.zeros(1, 3), 2), {"a": (1,)})
    assert torch.isnan(empty).all()
