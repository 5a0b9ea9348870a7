"""Statistics of the voxels of one channel, in memory that does not grow with the image."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, PlainSerializer

from pipeline.data.fingerprint.model import Finite, Record

BLOCK = 1 << 20  # voxels that are turned into float64 at once
LARGEST = float(np.finfo(np.float32).max)  # preprocessing works in float32: beyond it a value is infinite

Extent = Literal["0..1", "0..255", "wider"]


def _unpack(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return np.frombuffer(zlib.decompress(base64.b64decode(value, validate=True)), np.float32)


def _pack(sample: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(sample.tobytes(), 1)).decode("ascii")


class VoxelStatistics(Record):
    """Moments and extremes of all finite voxels (in float32), and a random sample of them, rising, float32."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    count: int
    mean: Finite
    std: Finite
    min: Finite
    max: Finite
    sample: Annotated[np.ndarray, BeforeValidator(_unpack), PlainSerializer(_pack)]

    @property
    def extent(self) -> Extent:
        """What the values lie in: a range that pictures and normalised images have, or a wider one."""
        if self.min < 0 or self.max > 255:
            return "wider"
        return "0..1" if self.max <= 1 else "0..255"

    @property
    def lowest_share(self) -> float:
        """Share of voxels that have the lowest value: air outside of the scan, black frames, removed skulls."""
        return float((self.sample == np.float32(self.min)).mean())

    def percentile(self, percent: Sequence[float]) -> list[float]:
        """Percentiles of the sample."""
        found: list[float] = np.percentile(self.sample.astype(np.float64), percent).tolist()
        return found


def voxel_statistics(values: np.ndarray, drawn: int, draw: np.random.Generator) -> VoxelStatistics | None:
    """Statistics of an array of any shape; None where there is no finite voxel.

    ``drawn``: size of the sample; smaller arrays are taken whole.
    """
    flat = values.ravel(order="K")  # a view, whatever the order in memory
    count, total, squares = 0, 0.0, 0.0
    lowest, highest, shift = np.inf, -np.inf, None
    for block in _finite_blocks(flat):
        if shift is None:
            shift = float(block[0])  # near the mean, so that the difference of squares keeps its digits
        lowest, highest = min(lowest, float(block.min())), max(highest, float(block.max()))
        block = block - shift
        count += block.size
        total += float(block.sum())
        squares += float(np.dot(block, block))
    if shift is None:
        return None
    sample = flat if flat.size <= drawn else flat[draw.integers(0, flat.size, drawn)]
    if sample.dtype.kind == "f":
        sample = sample[np.abs(sample) <= LARGEST]
    sample = np.sort(sample.astype(np.float32))
    mean = total / count
    return VoxelStatistics(
        count=count,
        mean=shift + mean,
        std=float(np.sqrt(max(0.0, squares / count - mean**2))),
        min=lowest,
        max=highest,
        sample=sample if sample.size else np.array([shift], np.float32),
    )


def _finite_blocks(flat: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK].astype(np.float64)
        if flat.dtype.kind == "f":
            block = block[np.abs(block) <= LARGEST]  # false for NaN
        if block.size:
            yield block
