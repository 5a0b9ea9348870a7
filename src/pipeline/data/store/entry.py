"""One entry: a folder of arrays and ``entry.json``, which says what they are and how to tell that they are whole."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.preprocessing import Prepared
from pipeline.data.store.arrays import OpenArrays, StoredArray
from pipeline.data.store.formats import SUFFIX, as_stored, encode
from pipeline.data.store.settings import StoreSettings

LAYOUT = 2  # of an entry's files; part of every key
EDGE = 4096  # bytes at both ends of a file that are compared with what was written
DESCRIPTION = "entry.json"


class BrokenEntryError(Exception):
    """An entry that is absent, not whole or not what was written."""


def write_entry(folder: Path, prepared: Prepared, settings: StoreSettings) -> None:
    """Fill a new folder and sync it to disk. Raises OSError; ValueError where an image does not fit its type."""
    dims = len(prepared.shape)
    image = as_stored(np.asarray(prepared.image), settings.dtype)
    folder.mkdir(parents=True)
    files = {"image": _write(folder, "image", image, settings, dims)}
    if prepared.label is not None:
        files["label"] = _write(folder, "label", np.asarray(prepared.label), settings, dims)
    if prepared.centres:
        rows = np.concatenate([np.asarray(voxels, np.int32) for voxels in prepared.centres.values()])
        files["centres"] = _write(folder, "centres", rows, StoreSettings(), 1)
    said = {
        "files": files,
        "affine": prepared.affine.tolist(),
        "native_shape": [int(extent) for extent in prepared.native_shape],
        "native_affine": prepared.native_affine.tolist(),
        "centres": [[int(index), len(voxels)] for index, voxels in prepared.centres.items()],
        "counts": [[int(index), int(count)] for index, count in prepared.counts.items()],
        "absent": [int(channel) for channel in prepared.absent],
    }
    text = json.dumps(said)
    _sync(folder / DESCRIPTION, [json.dumps({"crc32": zlib.crc32(text.encode()), "entry": said}).encode()])
    sync_folder(folder)


def read_entry(folder: Path, files: OpenArrays, *, verify: bool = True) -> Prepared:
    """The prepared case of an entry; its arrays are opened when they are indexed. Raises BrokenEntryError.

    ``verify``: compare size, first and last bytes of every file with what was written.
    """
    try:
        content = json.loads((folder / DESCRIPTION).read_bytes())
        said = content["entry"]
        if zlib.crc32(json.dumps(said).encode()) != content["crc32"]:
            raise ValueError(f"{DESCRIPTION} was altered")
        if verify:
            for facts in said["files"].values():
                _verify(folder / facts["file"], facts)
        arrays = {name: _stored(folder, name, facts, files) for name, facts in said["files"].items()}
        return Prepared(
            image=arrays["image"],
            label=arrays.get("label"),
            affine=np.array(said["affine"]),
            native_shape=tuple(said["native_shape"]),
            native_affine=np.array(said["native_affine"]),
            centres=StoredCentres(arrays["centres"], said["centres"]) if said["centres"] else {},
            counts=dict(map(tuple, said["counts"])),
            absent=tuple(said["absent"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenEntryError(f"{folder}: {error}") from error


class StoredCentres(Mapping[int, "NDArray[np.int32]"]):
    """Voxels of each class, (n, spatial_dims), read when a class is asked for."""

    def __init__(self, rows: StoredArray, sizes: list[list[int]]) -> None:
        self._rows = rows
        ends = np.cumsum([size for _, size in sizes]).tolist()
        self._spans = {index: (end - size, end) for (index, size), end in zip(sizes, ends, strict=True)}
        self._read: dict[int, NDArray[np.int32]] = {}

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        if index not in self._read:
            first, last = self._spans[index]
            self._read[index] = np.array(self._rows[first:last])
        return self._read[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __contains__(self, index: object) -> bool:
        return index in self._spans


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(folder: Path, name: str, array: NDArray[Any], settings: StoreSettings, spatial_dims: int) -> dict[str, Any]:
    pieces, offset = encode(array, settings.format, spatial_dims=spatial_dims)
    path = folder / f"{name}{SUFFIX[settings.format]}"
    _sync(path, pieces)
    size = sum(len(piece) for piece in pieces)
    head, tail = _edges(path, size)
    return {
        "file": path.name,
        "format": settings.format,
        "bytes": size,
        "crc32": [head, tail],
        "offset": offset,
        "shape": list(array.shape),
        "dtype": array.dtype.str,
    }


def _sync(path: Path, pieces: list[bytes | memoryview] | list[bytes]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _verify(path: Path, facts: Mapping[str, Any]) -> None:
    if path.stat().st_size != facts["bytes"] or _edges(path, facts["bytes"]) != tuple(facts["crc32"]):
        raise ValueError(f"{path.name} was altered or cut short")


def _edges(path: Path, size: int) -> tuple[int, int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        return zlib.crc32(os.pread(handle, EDGE, 0)), zlib.crc32(os.pread(handle, EDGE, max(0, size - EDGE)))
    finally:
        os.close(handle)


def _stored(folder: Path, name: str, facts: Mapping[str, Any], files: OpenArrays) -> StoredArray:
    stored = np.dtype(facts["dtype"])
    return StoredArray(
        files,
        folder / facts["file"],
        facts["format"],
        facts["offset"],
        facts["bytes"],
        tuple(facts["shape"]),
        stored,
        np.dtype(np.float32) if name == "image" else stored,
    )
