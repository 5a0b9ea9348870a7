"""What a fingerprint holds, and its file: strict types, no number that JSON does not know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError

FINGERPRINT_FILE = "fingerprint.json"
VERSION: Literal[1] = 1

Connectivity = Literal["faces", "edges", "corners"]
Unit = Literal["mm", "px"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """An immutable record that accepts its own keys and exact types only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FingerprintSettings(Record):
    """How a data set is measured.

    ``sample_voxels``: voxels drawn per image and per foreground for percentiles; ``pool_voxels``: upper bound of what
    all cases together contribute (the draw is halved until it holds). ``connectivity``: voxels of one component share
    faces, edges or corners. ``percentiles``: rising, between 0 and 100; the first and the last bound the intensity
    range of a case. ``seed``: of the draws.
    """

    sample_voxels: Annotated[int, Field(ge=1)] = 10_000
    pool_voxels: Annotated[int, Field(ge=1)] = 5_000_000
    connectivity: Connectivity = "corners"
    percentiles: Annotated[tuple[Finite, ...], Field(min_length=2)] = (0.5, 5.0, 10.0, 25.0, 50.0, 75.0, 95.0, 99.5)
    seed: int = 0

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> FingerprintSettings:
        """The settings as the section ``fingerprint`` of a configuration has them; percentiles in any order."""
        return cls(**{**section, "percentiles": tuple(sorted(set(map(float, section["percentiles"]))))})

    def drawn(self, cases: int) -> int:
        """Voxels drawn per case in a data set of so many cases: halved, so that one case more seldom changes it."""
        voxels = self.sample_voxels
        while voxels > 1 and voxels * cases > self.pool_voxels:
            voxels //= 2
        return voxels


class Spread(Record):
    """One number per case, summed up over ``count`` cases. ``percentiles``: percent, as text, to value."""

    count: int
    mean: Finite
    std: Finite
    min: Finite
    median: Finite
    max: Finite
    percentiles: dict[str, Finite]


class Pooled(Record):
    """Intensities of many voxels; every case has the same weight, as in nnU-Net (Isensee et al. 2021)."""

    mean: Finite
    std: Finite
    min: Finite
    median: Finite
    max: Finite
    percentiles: dict[str, Finite]


class Grid(Record):
    """Voxel grids of one modality, per axis in RAS order (pictures: row, column).

    ``spacing`` and sizes: mm, or pixels (see ``Fingerprint.unit``). ``cropped_*``: of the bounding box of the voxels
    that are not zero in some modality on the same grid, nnU-Net's crop. ``anisotropy``: coarsest by finest spacing of a
    case. ``orientations``: axis codes as stored in the files, to number of cases.
    """

    cases: int
    spacing: tuple[Spread, ...]
    shape: tuple[Spread, ...]
    size: tuple[Spread, ...]
    cropped_shape: tuple[Spread, ...]
    cropped_size: tuple[Spread, ...]
    anisotropy: Spread
    orientations: dict[str, int]


class Intensities(Record):
    """Intensities of one channel.

    ``stored``: number type in the file, to cases; ``ranges``: what the values of a case lie in (``0..1``, ``0..255``,
    ``wider``), to cases. ``image``: all voxels; ``foreground``: those inside a mask, None without masks. ``by_case``:
    statistics of the whole image of each case (see ``summarise.features``), which is what drift is judged by.
    """

    cases: int
    stored: dict[str, int]
    ranges: dict[str, int]
    image: Pooled
    foreground: Pooled | None
    by_case: dict[str, Spread]


class ClassMeasures(Record):
    """One class (or region) of the masks.

    ``annotated``: cases whose masks annotate it; ``present``: those in which it occurs. ``share``: of the voxels of the
    annotated cases. ``volume`` (mm^3; pixels in pictures) and ``components``: per case in which it occurs, None where
    there is none. ``touching``: cases in which it touches the border of the image.
    """

    annotated: int
    present: int
    voxels: int
    share: Finite
    volume: Spread | None
    components: Spread | None
    touching: int


class Group(Record):
    """What is known about a set of cases.

    ``grids``: by modality; ``intensities``: by channel: the modality, with a number where an image has several.
    ``targets``: class name to number of cases.
    """

    cases: int
    patients: int
    grids: dict[str, Grid]
    intensities: dict[str, Intensities]
    classes: dict[str, ClassMeasures]
    regions: dict[str, ClassMeasures]
    ignored_share: Finite
    targets: dict[str, int]


class Fingerprint(Record):
    """A data set in numbers: all cases together, and per site where sites are known."""

    version: Literal[1]
    name: str
    task: Literal["segmentation", "classification"]
    spatial_dims: Literal[2, 3]
    unit: Unit
    axes: tuple[str, ...]
    data_hash: str
    settings: FingerprintSettings
    overall: Group
    sites: dict[str, Group]

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Read a fingerprint.json; raises UserError."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{path}: not a fingerprint of this version: {where + ': ' if where else ''}{first['msg']}",
                "restore the file, or train again",
            ) from None
