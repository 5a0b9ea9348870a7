"""Losses and validation of several processes (gloo) together: those of one process with the whole batch."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from pipeline.collective import gathered, merged, processes
from pipeline.data.order import own_share
from pipeline.tasks.losses import CrossEntropyLoss, DiceCELoss, DiceLoss, FocalLoss, TverskyLoss

WORLD = 2
WEIGHTS = [0.5, 1.0, 3.0]


def losses() -> dict[str, tuple[nn.Module, bool, bool]]:
    """Name -> loss, whether of regions, whether some voxels are not valid."""
    return {
        "closed form": (DiceCELoss(batch_dice=True, dice_factor=0.7, ce_factor=1.3), False, False),
        "weighted": (DiceCELoss(WEIGHTS, batch_dice=True), False, False),
        "valid": (DiceCELoss(batch_dice=True), False, True),
        "regions": (DiceCELoss(batch_dice=True), True, True),
        "per image": (DiceCELoss(), False, False),
        "dice": (DiceLoss(batch_dice=True), False, False),
        "tversky": (TverskyLoss(WEIGHTS, alpha=0.3, beta=0.7, batch_dice=True), False, True),
        "cross entropy": (CrossEntropyLoss(WEIGHTS, label_smoothing=0.1), False, True),
        "focal": (FocalLoss(WEIGHTS), False, False),
    }


def batch(regions: bool, some: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 5, 6, generator=generator)
    target = torch.randint(0, 3, (4, 1, 5, 6), generator=generator)
    if regions:
        target = torch.randint(0, 2, (4, 3, 5, 6), generator=generator)
    valid = torch.rand(4, 1, 5, 6, generator=generator) < torch.tensor([0.2, 0.9, 0.6, 1.0]).view(4, 1, 1, 1)
    return logits, target, valid if some else None


def value_and_gradient(name: str, part: slice) -> tuple[Tensor, Tensor]:
    """Of the part of the batch, by the logits of it."""
    loss, regions, some = losses()[name]
    logits, target, valid = (None if tensor is None else tensor[part] for tensor in batch(regions, some))
    assert logits is not None
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, valid)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def _process(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    assert processes() == WORLD
    found = {name: value_and_gradient(name, slice(2 * rank, 2 * rank + 2)) for name in losses()}
    cases = {index: f"case {index}" for index in own_share(5, rank, WORLD)}
    torch.save({"losses": found, "merged": merged(cases), "gathered": gathered(rank)}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_losses_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_process, (port, tmp_path), nprocs=WORLD, start_method="fork")
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    for name in losses():
        value, gradient = value_and_gradient(name, slice(None))
        mean = sum(part["losses"][name][0] for part in parts) / WORLD
        assert torch.isclose(mean, value), name
        # DistributedDataParallel averages the gradients.
        together = torch.cat([part["losses"][name][1] for part in parts]) / WORLD
        assert torch.allclose(together, gradient, atol=1e-7), name
    assert all(part["merged"] == [f"case {index}" for index in range(5)] for part in parts)
    assert all(part["gathered"] == [0, 1] for part in parts)


@pytest.mark.parametrize(("count", "processes"), [(5, 2), (4, 2), (1, 3), (7, 4), (2, 5)])
def test_every_case_is_validated_and_all_take_the_same_number_of_steps(count: int, processes: int) -> None:
    shares = [own_share(count, process, processes) for process in range(processes)]
    assert {index for share in shares for index in share} == set(range(count))
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == -(-count // processes)


def test_alone_nothing_changes() -> None:
    assert processes() == 1
    assert gathered("a") == ["a"]
    assert merged({2: "c", 0: "a"}) == ["a", "c"]
