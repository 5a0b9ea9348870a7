"""Muon: its update by hand, its split of the parameters, and that it can be resumed."""

from __future__ import annotations

import copy

import pytest
import torch
import yaml
from torch import nn

from pipeline.conf_dir import conf_dir
from pipeline.config.build import build
from pipeline.optimizers import Muon
from pipeline.optimizers.muon import orthogonal
from pipeline.optimizers.state import lie_as_weights


@pytest.mark.parametrize("shape", [(16, 216), (216, 16), (64, 64), (8, 8)])
def test_orthogonal_keeps_directions_and_levels_lengths(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix, 5)
    assert found.shape == shape and found.dtype == torch.float32
    left, lengths, right = torch.linalg.svd(matrix, full_matrices=False)
    levelled = left.T @ found @ right.T  # diagonal where found has the singular vectors of matrix
    assert torch.allclose(levelled, torch.diag(levelled.diagonal()), atol=1e-3)
    clear = levelled.diagonal()[lengths > 0.02 * lengths.norm()]
    assert clear.min() > 0.65 and clear.max() < 1.25


def test_orthogonal_follows_the_published_polynomial() -> None:
    """In one dimension each iteration is 3.4445 x - 4.7750 x^3 + 2.0315 x^5, from x = 1 where the norm is taken out."""
    value = 1.0
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    assert orthogonal(torch.tensor([[7.0]]), 5).item() == pytest.approx(value, abs=1e-5)


def test_matrices_of_one_shape_are_made_together_as_each_alone() -> None:
    matrices = torch.randn(3, 8, 30, generator=torch.Generator().manual_seed(0))
    for matrix, found in zip(matrices, orthogonal(matrices, 5), strict=True):
        assert torch.allclose(found, orthogonal(matrix, 5), atol=1e-5)


def test_a_matrix_without_rank_stays_finite() -> None:
    assert torch.equal(orthogonal(torch.zeros(8, 16), 5), torch.zeros(8, 16))
    alike = torch.ones(8, 1000)  # rank one
    found = orthogonal(alike, 5)
    assert torch.linalg.svdvals(found)[0].item() == pytest.approx(0.6964, abs=1e-3)  # the polynomial five times
    assert torch.linalg.svdvals(found)[1:].max() < 1e-2


def test_first_step_by_hand() -> None:
    weight = nn.Parameter(torch.zeros(8, 8, 3))
    gradient = torch.randn(8, 8, 3, generator=torch.Generator().manual_seed(0))
    weight.grad = gradient.clone()
    Muon([weight], lr=0.1, momentum=0.95, weight_decay=0.5).step()
    # Nesterov of a momentum that began at zero: a positive multiple of the gradient, and so the same orthogonal matrix.
    expected = -0.1 * 0.2 * 24**0.5 * orthogonal(gradient.reshape(8, 24), 5).reshape(8, 8, 3)
    assert torch.allclose(weight.detach(), expected, atol=1e-6)


def test_rows_are_taken_in_blocks() -> None:
    weight = nn.Parameter(torch.zeros(20, 30))
    gradient = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    weight.grad = gradient.clone()
    Muon([weight], lr=1.0, weight_decay=0.0, block=8).step()
    expected = [-0.2 * 30**0.5 * orthogonal(rows, 5) for rows in gradient.split(8)]
    assert torch.allclose(weight.detach(), torch.cat(expected), atol=1e-5)


def test_vectors_and_narrow_kernels_are_updated_as_by_adamw() -> None:
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(4, 100)), nn.Parameter(torch.randn(()))]
    theirs = copy.deepcopy(mine)
    muon = Muon(mine, lr=0.01, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8, smallest=8)
    adamw = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(5):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        muon.step()
        adamw.step()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_parameters_without_gradient_stay() -> None:
    still, moved = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8, 8))
    moved.grad = torch.ones(8, 8)
    Muon([still, moved], lr=0.1).step()
    assert torch.equal(still.detach(), torch.ones(8, 8)) and not torch.equal(moved.detach(), torch.ones(8, 8))


def test_resumed_from_its_state_it_goes_on_to_the_same_bits() -> None:
    def steps(parameters: list[nn.Parameter], optimizer: Muon, first: int, last: int) -> None:
        for step in range(first, last):
            rng = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=rng)
            optimizer.step()

    torch.manual_seed(0)
    whole = [nn.Parameter(torch.randn(8, 9)), nn.Parameter(torch.randn(5))]
    resumed = copy.deepcopy(whole)
    steps(whole, Muon(whole, lr=0.01), 0, 6)
    before = Muon(resumed, lr=0.01)
    steps(resumed, before, 0, 3)
    after = Muon(resumed, lr=0.5)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    steps(resumed, after, 3, 6)
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_shipped_optimizers_are_those_of_pytorch_on_any_layout(name: str) -> None:
    """Fused kernels walk through memory as it lies: a weight in channels last and its gradient must lie alike."""
    node = yaml.safe_load((conf_dir() / "optimizer" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert node["fused"] is True
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        convolution = nn.Conv3d(3, 4, 3)
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last_3d)
        optimizer = build(node | {"fused": fused}, "optimizer")(convolution.parameters())
        for _ in range(5):
            optimizer.zero_grad()
            convolution(torch.randn(2, 3, 5, 6, 7)).square().sum().backward()
            optimizer.step()
        results.append([weight.detach() for weight in convolution.parameters()])
    for mine, plain in zip(*results, strict=True):
        assert torch.allclose(mine, plain, rtol=1e-4, atol=1e-6)


def test_the_state_of_another_layout_and_an_optimizer_that_was_not_fused_is_gone_on_with() -> None:
    results = []
    for change in (False, True):
        torch.manual_seed(0)
        convolution = nn.Conv3d(3, 4, 3)
        optimizer = torch.optim.AdamW(convolution.parameters(), 0.01)
        for number in range(4):
            if change and number == 2:
                saved = copy.deepcopy(optimizer.state_dict())
                convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last_3d)
                optimizer = torch.optim.AdamW(convolution.parameters(), 0.01, fused=True)
                optimizer.load_state_dict(saved)
                for group in optimizer.param_groups:
                    group.update(optimizer.defaults)
                lie_as_weights(optimizer)
            optimizer.zero_grad()
            convolution(
                torch.randn(2, 3, 5, 6, 7, generator=torch.Generator().manual_seed(number))
            ).square().sum().backward()
            optimizer.step()
        results.append([weight.detach() for weight in convolution.parameters()])
    for plain, changed in zip(*results, strict=True):
        assert torch.allclose(plain, changed, rtol=1e-4, atol=1e-6)
