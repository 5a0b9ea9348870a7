"""A folder of tiny cases for the tests of the store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.transforms import Compose, ScaleIntensityRanged

from pipeline.data.case import Case, FileSource, Labels
from pipeline.data.preprocessing import Prepared, Preprocessing
from pipeline.data.store import Store, StoreSettings

LABELS = Labels({0: "background", 1: "organ", 2: "tumour"})
SHAPE = (14, 12, 10)


def write_cases(folder: Path, count: int, shape: tuple[int, ...] = SHAPE) -> list[Case]:
    """NIfTI images of whole numbers with masks."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number in range(count):
        rng = np.random.default_rng([7, number])
        image = rng.integers(-1000, 400, shape).astype(np.int16)
        mask = (rng.integers(0, 12, shape) // 9).astype(np.uint8) * rng.integers(1, 3, shape).astype(np.uint8)
        affine = np.diag([1.0, 2.0, 1.5, 1.0])
        affine[:3, 3] = number
        for name, array in (("image", image), ("mask", mask)):
            nib.save(nib.Nifti1Image(array, affine), folder / f"{name}_{number:02d}.nii")
        image_file, mask_file = folder / f"image_{number:02d}.nii", folder / f"mask_{number:02d}.nii"
        cases.append(Case(f"case_{number:02d}", f"p{number}", {"ct": FileSource(image_file)}, FileSource(mask_file)))
    return cases


def hashes(cases: list[Case]) -> dict[str, dict[str, str]]:
    """sha256 of every file of every case, by name."""
    return {
        case.case_id: {
            source.path.name: hashlib.sha256(source.path.read_bytes()).hexdigest()
            for source in [*case.images.values(), *([case.label] if case.label else [])]
        }
        for case in cases
    }


def preprocessing(labels: Labels | None = LABELS) -> Preprocessing:
    scale = ScaleIntensityRanged(keys=["image"], a_min=-1000, a_max=400, b_min=0.0, b_max=1.0)
    return Preprocessing(Compose([scale]), labels)


def store_of(
    folder: Path, cases: list[Case], settings: StoreSettings | None = None, how: Preprocessing | None = None
) -> Store:
    return Store(folder, how or preprocessing(), "recipe", hashes(cases), settings)


def assert_same(one: Prepared, other: Prepared) -> None:
    """Equal to the bit."""
    for name in ("image", "label", "affine", "native_affine"):
        a, b = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        assert a.dtype == b.dtype and a.shape == b.shape, name
        assert a.tobytes() == b.tobytes(), name
    assert one.native_shape == other.native_shape and one.absent == other.absent
    assert dict(one.counts) == dict(other.counts)
    assert list(one.centres) == list(other.centres)
    for index in one.centres:
        assert np.array_equal(one.centres[index], other.centres[index])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of every entry."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("??/*/*"))}
