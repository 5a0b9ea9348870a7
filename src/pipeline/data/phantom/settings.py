"""What shapes the generated data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.errors import UserError, UserErrors

Range = tuple[float, float]

GENERATOR_VERSION = 1
"""Raised whenever the same settings would give other voxels."""


@dataclass(frozen=True)
class PhantomSettings:
    """Every choice of the generated thorax CT data set; a pair is the (lowest, highest) value of a uniform draw.

    Per data set: ``seed``; ``patients``, how many; ``second_scan_rate`` and ``tumour_free_rate``, fractions of the
    patients, met to within one patient at any number of patients.

    Per patient: ``tumours_per_patient``; ``tumour_diameter_mm`` (log-uniform), ``tumour_hu``; inner half width and
    half depth of the rib cage ``chest_half_width_mm``, ``chest_half_depth_mm``; ``lung_height_mm`` from the apex to
    the right dome of the diaphragm; ``fat_mm``, thickness of the fat under the skin.

    Per scan: ``growth``, factor on tumour diameters in a second scan; ``orientations``, axis codes the voxel axes
    increase to (RAS: right, anterior, superior); ``spacing_mm`` in plane and ``slice_mm`` along the body;
    ``width_mm``, ``depth_mm``, ``height_mm``, the field of view from left to right, front to back, foot to head;
    ``tilt_deg`` and ``shift_mm``, largest rotation about and shift along each axis on the table; ``lung_hu``;
    ``blood_hu``, contrast medium included; ``blur_voxels``, sigma of the point spread; ``noise_hu``, its standard
    deviation; ``noise_correlation_voxels``, its correlation (sigma); ``offset_hu`` between scanners.

    Raises UserErrors for values that make no data set.
    """

    seed: int = 0
    patients: int = 20
    second_scan_rate: float = 0.2
    tumour_free_rate: float = 0.15
    tumours_per_patient: tuple[int, int] = (1, 3)
    tumour_diameter_mm: Range = (22.0, 60.0)
    tumour_hu: Range = (-30.0, 60.0)
    chest_half_width_mm: Range = (122.0, 146.0)
    chest_half_depth_mm: Range = (86.0, 106.0)
    lung_height_mm: Range = (180.0, 225.0)
    fat_mm: Range = (5.0, 26.0)
    growth: Range = (1.05, 1.25)
    orientations: tuple[str, ...] = ("RAS", "LPS", "LAS", "RAI", "LPI", "ASL")
    spacing_mm: Range = (3.6, 4.6)
    slice_mm: Range = (3.8, 5.0)
    width_mm: Range = (335.0, 380.0)
    depth_mm: Range = (265.0, 300.0)
    height_mm: Range = (285.0, 320.0)
    tilt_deg: float = 5.0
    shift_mm: float = 7.0
    lung_hu: Range = (-880.0, -800.0)
    blood_hu: Range = (140.0, 240.0)
    blur_voxels: Range = (0.25, 0.5)
    noise_hu: Range = (10.0, 30.0)
    noise_correlation_voxels: float = 0.5
    offset_hu: Range = (-12.0, 12.0)

    def __post_init__(self) -> None:
        """Turn the lists of a YAML file into tuples and refuse what makes no data set."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list | tuple):
                convert: Any = {"orientations": str, "tumours_per_patient": int}.get(field.name, float)
                object.__setattr__(self, field.name, tuple(convert(item) for item in value))
        mistakes = self._mistakes()
        if len(mistakes) == 1:
            raise mistakes[0]
        if mistakes:
            raise UserErrors(mistakes)

    def _mistakes(self) -> list[UserError]:
        found = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "orientations" and isinstance(value, tuple):
                if len(value) != 2 or value[0] > value[1]:
                    found.append(UserError(f"{field.name}={list(value)}: not a pair of lowest and highest"))
                elif field.name in _POSITIVE and value[0] <= 0:
                    found.append(UserError(f"{field.name}={list(value)}: must be positive"))
            elif field.name in ("second_scan_rate", "tumour_free_rate") and not 0 <= value <= 1:
                found.append(UserError(f"{field.name}={value}: not between 0 and 1"))
            elif field.name == "patients" and not 1 <= value <= 99999:
                found.append(UserError(f"patients={value}: not between 1 and 99999"))
            elif field.name in ("seed", "tilt_deg", "shift_mm", "noise_correlation_voxels") and value < 0:
                found.append(UserError(f"{field.name}={value}: must not be negative"))
        for code in self.orientations or ("",):
            if sorted("RAS".find(_OPPOSITE.get(letter, letter)) for letter in code) != [0, 1, 2]:
                found.append(
                    UserError(f"orientations: {code!r} is no axis code", "Use one of R/L, A/P and S/I each, as in LPS.")
                )
        if not found:
            coarsest = max(self.spacing_mm[1], self.slice_mm[1])
            if self.tumour_diameter_mm[0] < 2 * coarsest:
                found.append(
                    UserError(
                        f"tumour_diameter_mm: {self.tumour_diameter_mm[0]:g} mm is less than two voxels of"
                        f" {coarsest:g} mm",
                        "Raise tumour_diameter_mm, or lower spacing_mm and slice_mm.",
                    )
                )
            if self.tumours_per_patient[0] < 1:
                found.append(
                    UserError(
                        f"tumours_per_patient={list(self.tumours_per_patient)}: at least 1",
                        "Patients without a tumour are set by tumour_free_rate.",
                    )
                )
            if self.blur_voxels[0] < 0 or self.noise_hu[0] < 0:
                found.append(UserError("blur_voxels and noise_hu must not be negative"))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, tuples as lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


_OPPOSITE = {"L": "R", "P": "A", "I": "S"}
_POSITIVE = {
    "tumour_diameter_mm",
    "chest_half_width_mm",
    "chest_half_depth_mm",
    "lung_height_mm",
    "fat_mm",
    "growth",
    "spacing_mm",
    "slice_mm",
    "width_mm",
    "depth_mm",
    "height_mm",
}
