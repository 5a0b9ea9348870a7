"""Sliding windows and flips against results known beforehand."""

import pytest
import torch

from pipeline.inference.predictor import SlidingWindow, WholeImage, all_flips, ensemble


def test_flips() -> None:
    assert all_flips([]) == [[]]
    assert all_flips([0, 2]) == [[], [2], [4], [2, 4]]


def pointwise(image: torch.Tensor) -> torch.Tensor:
    return torch.cat([image, -2 * image], dim=1)


@pytest.mark.parametrize("shape", [(13, 17), (9, 12, 11), (5, 4, 3)])
@pytest.mark.parametrize("mirror", [[], [0, 1]])
def test_windows_of_a_pointwise_network_change_nothing(shape: tuple[int, ...], mirror: list[int]) -> None:
    image = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    window = SlidingWindow((6,) * len(shape), overlap=0.5, window_batch=2, blending="gaussian", mirror_axes=mirror)
    assert torch.allclose(window(pointwise, image), pointwise(image), atol=1e-5)


def test_mirrored_logits_are_averaged() -> None:
    def position(image: torch.Tensor) -> torch.Tensor:
        return torch.arange(4.0).repeat(1, 1, 3, 1)

    window = SlidingWindow((3, 4), overlap=0.0, window_batch=1, blending="constant", mirror_axes=[1])
    assert torch.allclose(window(position, torch.zeros(1, 1, 3, 4)), torch.full((1, 1, 3, 4), 1.5))

    def corner(image: torch.Tensor) -> torch.Tensor:
        return image[:, :, 0, 0]

    image = torch.tensor([[[[1.0, 3.0], [5.0, 11.0]]]])
    assert float(WholeImage(mirror_axes=[0, 1])(corner, image)) == pytest.approx(5.0)
    assert float(WholeImage(mirror_axes=[])(corner, image)) == pytest.approx(1.0)


def test_an_ensemble_is_the_mean_of_probabilities() -> None:
    def network(logits: list[float]) -> object:
        return lambda image: torch.tensor([logits])

    networks = [network([0.0, 0.0]), network([0.0, 1.0986123])]
    mean = ensemble(networks, WholeImage(mirror_axes=[]), torch.zeros(1, 1, 2, 2), bf16=False)  # type: ignore[arg-type]
    assert torch.allclose(mean, torch.tensor([[0.375, 0.625]]))
