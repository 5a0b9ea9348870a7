"""RandomAffined against MONAI's Affine, and what it must leave alone."""

import numpy as np
import pytest
import torch
from monai.transforms import Affine

from pipeline.transforms import RandomAffined


def ball(shape: tuple[int, ...]) -> torch.Tensor:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return torch.from_numpy(np.exp(-6 * ((grid - 0.2) ** 2).sum(0))).float()[None]


class Fixed(RandomAffined):
    """The same draw every time: ``angle`` about every axis, ``zoom``."""

    def __init__(self, angle: float, zoom: float, dims: int, **given: object) -> None:
        super().__init__(["image", "label"], 1.0, [angle] * dims, [zoom, zoom], **given)  # type: ignore[arg-type]

    def randomize(self, data: object) -> None:
        super().randomize(data)
        self.R = _Highest()  # type: ignore[assignment]


class _Highest:
    def uniform(self, low: float, high: float) -> float:
        return high


def test_rotation_in_the_plane_equals_monai() -> None:
    image = ball((24, 24))
    ours = Fixed(25, 1.1, 1)({"image": image})["image"]
    theirs, _ = Affine(rotate_params=np.deg2rad(25), scale_params=(1 / 1.1,) * 2, padding_mode="border")(image)
    assert torch.allclose(ours, theirs.as_tensor(), atol=2e-3)


def test_zoom_in_three_dimensions_equals_monai() -> None:
    image = ball((16, 20, 12))
    ours = Fixed(0, 1.2, 3)({"image": image})["image"]
    theirs, _ = Affine(scale_params=(1 / 1.2,) * 3, padding_mode="border")(image)
    assert torch.allclose(ours, theirs.as_tensor(), atol=2e-3)


def test_angles_are_angles_in_the_patient() -> None:
    """A quarter turn of a patch with voxels of 1 x 2 mm moves a point by millimetres, not by voxels."""
    image = torch.zeros(1, 41, 41)
    image[0, 20, 25] = 1  # 10 mm from the centre along the axis of 2 mm voxels
    turned = Fixed(90, 1.0, 1, spacing=(1.0, 2.0))({"image": image})["image"][0]
    row, column = np.unravel_index(int(turned.argmax()), turned.shape)
    assert (abs(row - 20), column) == (10, 20)


def test_image_and_label_move_together_and_the_label_keeps_its_values() -> None:
    label = (ball((20, 22, 18)) > 0.3).to(torch.uint8) * 2
    moved = RandomAffined(["image", "label"], 1.0, [20, 20, 20], [0.8, 1.2])
    moved.set_random_state(seed=3)
    result = moved({"image": label.float(), "label": label})
    assert result["label"].dtype == torch.uint8
    assert set(result["label"].unique().tolist()) == {0, 2}
    assert ((result["image"] > 1) == (result["label"] > 0)).float().mean() > 0.995


def test_probability_zero_and_absent_keys_change_nothing() -> None:
    image = ball((8, 8))
    assert RandomAffined(["image", "label"], 0.0, [20], [1, 1])({"image": image})["image"] is image
    with pytest.raises(ValueError, match="mode"):
        RandomAffined(["image"], 1.0, [20], [1, 1], mode=["cubic"])
