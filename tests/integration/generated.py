"""Tiny data sets in the layouts that the shipped experiments expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

# what a user says of these layouts, and of the real sets that have them
TUMOUR = "data.labels={0: background, 1: tumour}"
SHENZHEN = ["data=table", "data.table=labels.csv", 'data.columns.case_id="{site}_{case_id}"',
            'data.columns.patient_id="{site}_{case_id}"', 'data.columns.image="images/{file}"']  # fmt: skip
NODULES = ["data=table", "data.table=nodules.csv", "data.columns.case_id=name", "data.columns.patient_id=patient",
           'data.columns.image="images/{name}.nii.gz"']  # fmt: skip
SARCOMA = ["data=files", 'data.images={CT: "{case}/CT_image.nii.gz", MR: "{case}/MR_T1_image.nii.gz", '
           'PET: "{case}/PET_image.nii.gz"}', 'data.mask="{case}/CT_mask.nii.gz"']  # fmt: skip


def blob(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with a bright ball, and the ball."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), -1)
    inside = ((grid - rng.uniform(-0.3, 0.3, len(shape))) ** 2).sum(-1) < rng.uniform(0.2, 0.4)
    return rng.normal(60, 10, shape) + 90 * inside, inside.astype(np.uint8)


def shenzhen(root: Path) -> None:
    """labels.csv, images/*.png, masks/*.png with 0 and 255."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["file,site,case_id,tuberculosis,lung_fraction"]
    for number in range(12):
        image, inside = blob((40, 48), rng)
        name = f"CHNCXR_{number:04d}_{number % 2}.png"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / name)
        Image.fromarray(inside * np.uint8(255)).save(root / "masks" / name)
        rows.append(f"{name},shenzhen,{number:04d},{number % 2},0.3")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def hippocampus(root: Path) -> None:
    """Decathlon layout with two labels."""
    rng = np.random.default_rng(1)
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    listed = []
    for number in range(10):
        shape = (int(rng.integers(18, 24)), 26, int(rng.integers(16, 20)))
        image, inside = blob(shape, rng)
        label = inside + (inside & (np.indices(shape)[1] > shape[1] // 2))
        for folder, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", label.astype(np.uint8))):
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"hippocampus_{number:03d}.nii.gz")
        name = f"hippocampus_{number:03d}.nii.gz"
        listed.append(f'{{"image": "./imagesTr/{name}", "label": "./labelsTr/{name}"}}')
    (root / "dataset.json").write_text(
        '{"name": "Hippocampus", "modality": {"0": "MRI"},'
        ' "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},'
        f' "numTraining": {len(listed)}, "training": [{", ".join(listed)}], "test": []}}'
    )


def nodules(root: Path) -> None:
    """nodules.csv, images/*.nii.gz, labels/*.nii.gz."""
    rng = np.random.default_rng(2)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    rows = ["name,patient,class"]
    for number in range(15):
        image, inside = blob((32, 32, 9), rng)
        affine = np.diag([0.7, 0.7, 1.25 + number % 3, 1.0])
        name = f"LIDC-{number:04d}_n0"
        nib.save(nib.Nifti1Image(image.clip(0, 255).astype(np.uint8), affine), root / "images" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(inside, affine), root / "labels" / f"{name}.nii.gz")
        rows.append(f"{name},LIDC-{number:04d},{('benign', 'malignant', 'indeterminate')[number % 3]}")
    (root / "nodules.csv").write_text("\n".join(rows) + "\n")


def medmnist(root: Path) -> None:
    """pneumoniamnist.npz."""
    rng = np.random.default_rng(3)
    root.mkdir(parents=True)
    arrays = {}
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez(root / "pneumoniamnist.npz", **arrays)


def sarcoma(root: Path) -> None:
    """One folder per case with three modalities on three grids; the last case has no PET."""
    rng = np.random.default_rng(4)
    for number in range(9):
        folder = root / f"STS_{number:03d}"
        folder.mkdir(parents=True)
        image, inside = blob((24, 22, 12), rng)
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        for modality, step in (("CT", 1), ("MR_T1", 1), ("PET", 2)):
            if modality == "PET" and number == 8:
                continue
            grid = affine @ np.diag([step, step, 1.0, 1.0])
            array, mask = image[::step, ::step], inside[::step, ::step]
            nib.save(nib.Nifti1Image(array.astype(np.float32), grid), folder / f"{modality}_image.nii.gz")
            nib.save(nib.Nifti1Image(mask, grid), folder / f"{modality}_mask.nii.gz")


# what each experiment needs: a writer of its data (None: it makes its own) and overrides that make it tiny
EXPERIMENTS: dict[str, tuple[Callable[[Path], None] | None, list[str]]] = {
    "lung_unet": (
        None,
        ["data.phantom.patients=6", "data.phantom.spacing_mm=[7.5,8]", "data.phantom.slice_mm=[7.5,8]",
         "data.phantom.tumour_diameter_mm=[30,55]", "transforms.spacing=[8,8,8]", "sampling.patch_size=[24,24,24]"],
    ),
    "auto": (hippocampus, ["data=decathlon", "plan.budget=1m"]),
    "lung_xray_unet": (shenzhen, ["transforms.size=[32,32]"]),
    "hippocampus_unet": (hippocampus, ["sampling.patch_size=[16,24,16]"]),
    "lung_nodule_unet": (nodules, ["sampling.patch_size=[16,16,8]"]),
    "tb_xray_cnn": (shenzhen, ["transforms.size=[32,32]"]),
    "lung_nodule_cnn": (nodules, ["transforms.size=[16,16,8]"]),
    "pneumonia_cnn": (medmnist, []),
    "sarcoma_multimodal": (sarcoma, ["sampling.patch_size=[16,16,8]", "data.missing.modality=mean"]),
}  # fmt: skip
