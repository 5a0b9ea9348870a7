"""Several modalities of a case on one grid, and what stands in where something is missing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.case import Case, FileSource
from pipeline.data.loading import drop_channels
from pipeline.data.modalities import fill_nonfinite, read_modalities
from pipeline.errors import UserError
from pipeline.networks.modalities import CompleteModalities


def volume(path: Path, array: np.ndarray, affine: np.ndarray) -> FileSource:
    nib.save(nib.Nifti1Image(array, affine), path)
    return FileSource(path)


def ramp(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """The world coordinate x + 10 y + 100 z (mm) of each voxel: linear interpolation keeps it exactly."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    return (world @ [1.0, 10.0, 100.0]).astype(np.float32)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    coarse = np.diag([4.0, 4.0, 5.0, 1.0])
    coarse[:3, 3] = (-10, -12, 3)
    fine = np.diag([-1.0, 1.5, 2.0, 1.0])  # another orientation, spacing and origin
    fine[:3, 3] = (40, -14, 0)
    return Case(
        "a",
        "a",
        {
            "CT": volume(tmp_path / "ct.nii.gz", ramp((8, 8, 6), coarse), coarse),
            "MR": volume(tmp_path / "mr.nii.gz", ramp((60, 40, 30), fine), fine),
        },
    )


def test_modalities_are_resampled_in_physical_space_onto_the_first(case: Case) -> None:
    image, absent = read_modalities(case, ("CT", "MR"))
    assert absent == ()
    assert image.array.shape == (2, 8, 8, 6)
    inside = image.array[1, 1:, 1:, :]  # where the MR covers the CT
    np.testing.assert_allclose(inside, image.array[0, 1:, 1:, :], atol=1e-2)


def test_the_order_of_modalities_chooses_the_grid(case: Case) -> None:
    image, _ = read_modalities(case, ("MR", "CT"))
    assert image.array.shape == (2, 60, 40, 30)


def test_outside_of_what_a_modality_shows_is_its_lowest_value(case: Case, tmp_path: Path) -> None:
    far = np.eye(4)
    far[:3, 3] = 500
    other = Case("b", "b", {**case.images, "MR": volume(tmp_path / "far.nii", np.full((3, 3, 3), 7.0), far)})
    image, _ = read_modalities(other, ("CT", "MR"))
    assert (image.array[1] == 7).all()


def test_an_absent_modality_is_zero_and_named(case: Case) -> None:
    alone = Case("a", "a", {"CT": case.images["CT"]})
    image, absent = read_modalities(alone, ("CT", "MR"))
    assert absent == (1,) and not image.array[1].any() and image.array[0].any()


def test_without_the_reference_the_mask_gives_the_grid(case: Case, tmp_path: Path) -> None:
    mask = volume(tmp_path / "mask.nii.gz", np.zeros((8, 8, 6), np.uint8), np.diag([4.0, 4.0, 5.0, 1.0]))
    image, absent = read_modalities(Case("a", "a", {"MR": case.images["MR"]}, mask), ("CT", "MR"))
    assert absent == (0,) and image.array.shape == (2, 8, 8, 6)


def test_voxels_that_are_no_numbers() -> None:
    array = np.array([[[1.0, np.nan], [5.0, np.inf]]])
    assert fill_nonfinite(array, "fill")[0].tolist() == [[1.0, 1.0], [5.0, 1.0]]
    assert fill_nonfinite(array, "interpolate")[0].tolist() == [[1.0, 1.0], [5.0, 5.0]]
    with pytest.raises(ValueError, match="2 voxels are not finite"):
        fill_nonfinite(array, "error")
    with pytest.raises(ValueError, match="no voxel"):
        fill_nonfinite(np.full((1, 2), np.nan), "fill")


def test_nonfinite_voxels_name_file_and_remedy(tmp_path: Path) -> None:
    source = volume(tmp_path / "nan.nii", np.full((2, 2, 2), np.nan, np.float32), np.eye(4))
    with pytest.raises(UserError, match=r"nan\.nii.*not finite"):
        read_modalities(Case("a", "a", {"image": source}), ("image",))


def test_absent_channels_get_their_constant() -> None:
    network = CompleteModalities(nn.Identity(), [0.25, -1.0])
    image = torch.ones(2, 2, 3, 3)
    image[1, 1, 0, 0] = torch.nan
    filled = network(image)
    assert (filled[0] == 1).all() and (filled[1, 0] == 1).all() and (filled[1, 1] == -1).all()
    assert "fill" in network.state_dict()


def test_dropout_leaves_one_modality_and_drops_with_its_probability() -> None:
    rng = np.random.default_rng(0)
    drawn = [drop_channels(3, (), 0.5, rng) for _ in range(4000)]
    assert all(len(absent) < 3 for absent in drawn)
    # each of 8 outcomes has probability 1/8; the one without a modality gives one of three back
    share = np.mean([0 in absent for absent in drawn])
    assert share == pytest.approx(0.5 - 1 / 24, abs=0.03)
    assert all(0 in drop_channels(3, (0,), 0.9, rng) for _ in range(200))
    assert drop_channels(2, (0,), 0.99, np.random.default_rng(1)) == (0,)
