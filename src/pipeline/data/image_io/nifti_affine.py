"""The affine of a NIfTI header, as nibabel has it: sform if its code is set, else qform, else the spacing alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

TOLERANCE = 1e-3  # mm (or a fraction of a voxel); two forms of float32 never agree to the last digit
PIXDIM = 0.01  # part by which the voxel size of the sform and that of pixdim may differ
# Bytes of a header that say where its voxels are, by its size: dim, pixdim, both forms with their codes, units.
PLACES = {
    348: (slice(0, 4), slice(40, 56), slice(76, 108), slice(252, 328), slice(123, 124)),
    540: (slice(0, 4), slice(16, 80), slice(104, 168), slice(344, 496), slice(500, 504)),
}
CODES = {348: slice(252, 256), 540: slice(344, 352)}


def geometry(header: bytes, version: int) -> tuple[bytes, ...]:
    """The parts of a header on which the affine depends; sizes of axes count only where neither form is set."""
    size, dims, *rest = (header[place] for place in PLACES[version])
    if any(header[CODES[version]]):
        dims = dims[: len(dims) // 8].ljust(len(dims), b"\0")
    return (size, dims, *rest)


@lru_cache(maxsize=4096)
def affine_of(parts: tuple[bytes, ...], version: int) -> tuple[np.ndarray | None, tuple[str, ...], str]:
    """The affine in mm (not to be altered), what is doubtful about it, and what is wrong where there is none.

    ``parts``: from ``geometry``. Images and masks of a data set share most of them, so the answer is kept.
    """
    import nibabel as nib

    blank = bytearray(version)
    for place, part in zip(PLACES[version], parts, strict=True):
        blank[place] = part
    kind: Any = nib.Nifti1Header if version == 348 else nib.Nifti2Header
    header = kind(bytes(blank), check=False)
    pixdim = np.asarray(header["pixdim"], dtype=float)[1:4]
    dims = min(int(header["dim"][0]), 3)
    sform_set, qform_set = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    sform = np.asarray(header.get_sform(), dtype=float) if sform_set else None
    spacing_valid = bool(np.isfinite(pixdim[:dims]).all() and (pixdim[:dims] > 0).all())
    qform = None
    if qform_set and spacing_valid:
        try:
            qform = np.asarray(header.get_qform(), dtype=float)
        except Exception:  # a quaternion that is none
            qform = None
    doubts: list[str] = []
    chosen = None
    if sform is not None and usable(sform, dims):
        chosen = sform
        if qform is not None and usable(qform, dims):
            apart = np.abs(sform - qform).max()
            if apart > TOLERANCE:
                doubts.append(f"sform and qform disagree by up to {apart:.3g} mm; the sform is used")
        elif spacing_valid and not qform_set:
            lengths = np.sqrt((sform[:3, :dims] ** 2).sum(axis=0))
            if np.abs(lengths / pixdim[:dims] - 1).max() > PIXDIM:
                said = f"{np.round(lengths, 4).tolist()} by the sform, {np.round(pixdim[:dims], 4).tolist()} by pixdim"
                doubts.append(f"two voxel sizes: {said}; the sform is used")
    elif qform is not None and usable(qform, dims):
        chosen = qform
        if sform_set:
            doubts.append("the sform is degenerate; the qform is used")
    elif not sform_set and not qform_set and spacing_valid:
        chosen = np.asarray(header.get_base_affine(), dtype=float)
        doubts.append("no orientation (sform_code and qform_code are 0): left and right are unknown")
    if chosen is None:
        said = "sform is degenerate" if sform_set else f"spacing (pixdim) is {pixdim[:dims].tolist()}"
        return None, (), f"no usable affine: {said}"
    unit = int(header["xyzt_units"]) & 7
    if unit in (1, 3):
        doubts.append(f"the header's unit is {'metre' if unit == 1 else 'micrometre'}; taken as mm")
    return chosen, tuple(doubts), ""


def usable(affine: np.ndarray, dims: int = 3) -> bool:
    """Whether an affine is finite and maps voxel axes to independent directions."""
    axes = affine[:3, :dims]
    if not np.isfinite(affine).all():
        return False
    lengths = np.sqrt((axes**2).sum(axis=0))
    return bool(lengths.min() > 0 and np.linalg.svd(axes / lengths, compute_uv=False)[-1] > 1e-3)
