"""Batch norm of two real processes against one with the whole batch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from pipeline.networks.shared_batch_norm import SharedBatchNorm, share_batch_norm

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3), nn.BatchNorm1d(3)]
    built = nn.Sequential(*layers).double()
    built(batch())  # the lazy layer learns its size, the norms their first statistics
    return built


def batch() -> Tensor:
    return torch.randn(6, 1, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(output: Tensor) -> Tensor:
    return (output * torch.arange(3, dtype=output.dtype)).square().mean()


def train_a_part(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = share_batch_norm(network(), CPU)
    loss = loss_of(part(batch()[rank * 3 : rank * 3 + 3]))
    loss.backward()
    gradients = {}
    for name, weight in part.named_parameters():
        assert weight.grad is not None
        dist.all_reduce(weight.grad)
        gradients[name] = weight.grad / 2  # as training on several devices averages them
    dist.all_reduce(loss := loss.detach())
    if rank == 0:
        torch.save({"loss": loss / 2, "gradients": gradients, "state": part.state_dict()}, Path(folder, "found.pt"))
    dist.destroy_process_group()


def test_two_processes_have_the_norm_of_one(tmp_path: Path) -> None:
    whole = network()
    loss = loss_of(whole(batch()))
    loss.backward()
    multiprocessing.spawn(train_a_part, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-12, atol=0)
    for name, weight in whole.named_parameters():
        torch.testing.assert_close(found["gradients"][name], weight.grad, rtol=1e-9, atol=1e-12)
    assert list(found["state"]) == list(whole.state_dict())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(found["state"][name], value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_the_plain_layer(training: bool) -> None:
    plain = network().train(training)
    shared = share_batch_norm(copy.deepcopy(plain), CPU)
    assert sum(isinstance(module, SharedBatchNorm) for module in shared.modules()) == 2
    assert torch.equal(shared(batch()), plain(batch()))


def test_a_norm_by_itself_and_the_same_parameters() -> None:
    plain = nn.BatchNorm3d(2, eps=0.1, momentum=0.3)
    shared = share_batch_norm(plain, CPU)
    assert isinstance(shared, SharedBatchNorm) and (shared.eps, shared.momentum) == (0.1, 0.3)
    assert shared.weight is plain.weight and shared.running_var is plain.running_var
