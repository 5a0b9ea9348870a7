"""Arrays as files from which a part can be read: .npy, and blosc2's compressed blocks (.b2nd)."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.store.settings import Format, ImageType

BLOCK = 16  # voxels along each axis that blosc2 decompresses at once: the finest that cost no size
CHUNK = 64  # voxels along each axis of what it compresses together
LEVEL = 5  # of Zstandard after bit shuffle; higher ones gain nothing on CT but time
SUFFIX: dict[Format, str] = {"npy": ".npy", "blosc2": ".b2nd"}
NARROWER = tuple(np.dtype(kind) for kind in (np.uint8, np.int16, np.uint16, np.float16))
RANGES = {"uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}


def encode(array: NDArray[Any], kind: Format, *, spatial_dims: int) -> tuple[list[bytes | memoryview], int]:
    """The content of a file, in pieces, and where in it the plain voxels begin (0 in blosc2)."""
    if kind == "npy":
        head = BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
        return [head.getvalue(), np.ascontiguousarray(array).data.cast("B")], head.tell()
    import blosc2

    chunks, blocks = blocking(array.shape, spatial_dims)
    parameters = {"codec": blosc2.Codec.ZSTD, "clevel": LEVEL, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
    packed = blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=parameters)
    return [packed.to_cframe()], 0


def blocking(shape: Sequence[int], spatial_dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks and blocks of an array: cubes of the spatial axes, one channel each; flat images get larger squares."""
    lead = len(shape) - spatial_dims
    wider = 4 if spatial_dims == 2 else 1  # so that a block holds as many voxels
    chunks = (1,) * lead + tuple(min(extent, CHUNK * wider) for extent in shape[lead:])
    blocks = (1,) * lead + tuple(min(extent, BLOCK * wider) for extent in shape[lead:])
    return chunks, blocks


def open_array(path: Path, kind: Format, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    """The array of a file, memory-mapped: indexing gives an ndarray. Raises OSError, ValueError or RuntimeError."""
    if kind == "npy":
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = int(np.prod(shape))
        return np.frombuffer(mapped, dtype, count=count, offset=offset).reshape(shape)
    import blosc2

    array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    if array.shape != tuple(shape) or array.dtype != dtype:
        raise ValueError(f"{path} holds {array.dtype} {array.shape}, not {dtype} {tuple(shape)}")
    return array


def as_stored(image: NDArray[np.float32], dtype: ImageType) -> NDArray[Any]:
    """An image in the type it is stored in. Raises ValueError where float16 cannot hold a value."""
    if dtype == "auto":
        return narrowest(image)
    if dtype == "float16":
        greatest = float(np.abs(image).max())
        if greatest > float(np.finfo(np.float16).max):  # not so for NaN
            raise ValueError(f"voxels of magnitude {greatest:g} are too large for store.dtype=float16")
        return image.astype(np.float16)
    return image


def narrowest(array: NDArray[np.float32]) -> NDArray[Any]:
    """The array in the smallest type that holds every value to the bit, itself where none does."""
    sample = array.reshape(-1)[:: max(1, array.size // 1000)]
    low, high = float(array.min()), float(array.max())
    for kind in NARROWER:
        if kind.name in RANGES:
            least, most = RANGES[kind.name]
            if not (least <= low and high <= most):  # NaN fails too
                continue
        if _same(sample, kind) and _same(array, kind):
            return array.astype(kind)
    return array


def _same(array: NDArray[np.float32], kind: np.dtype[Any]) -> bool:
    with np.errstate(over="ignore"):
        back = array.astype(kind).astype(np.float32)
    return np.array_equal(back.view(np.int32), array.view(np.int32))
