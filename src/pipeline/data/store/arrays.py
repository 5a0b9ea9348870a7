"""Arrays of entries, opened when they are indexed and closed when too much is open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.store.formats import open_array
from pipeline.data.store.settings import Format
from pipeline.errors import UserError

MOST_OPEN = 128  # arrays: each keeps a file descriptor, of which a process has 1024 or so
MOST_MAPPED = 256 << 20  # bytes: pages that were read count as memory of this process


class OpenArrays:
    """The open arrays of a store, least recently used first; whatever falls out is opened again when it is needed."""

    def __init__(self, *, most_open: int = MOST_OPEN, most_mapped: int = MOST_MAPPED) -> None:
        self.most_open = most_open
        self.most_mapped = most_mapped
        self.mapped = 0
        self._open: OrderedDict[Path, tuple[Any, int]] = OrderedDict()
        self._guard = threading.RLock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, stored: StoredArray) -> Any:
        """The array, ready to be indexed."""
        with self._guard:
            known = self._open.get(stored.path)
            if known is not None:
                self._open.move_to_end(stored.path)
                return known[0]
            array = open_array(stored.path, stored.format, stored.offset, stored.shape, stored.stored)
            self._open[stored.path] = (array, stored.file_bytes)
            self.mapped += stored.file_bytes
            while len(self._open) > self.most_open or self.mapped > self.most_mapped:
                self._forget(next(iter(self._open)))
            return array

    def close(self, folder: Path) -> None:
        """Close the arrays of an entry."""
        with self._guard:
            for path in [path for path in self._open if path.parent == folder]:
                self._forget(path)

    def _forget(self, path: Path) -> None:
        _, size = self._open.pop(path)
        self.mapped -= size


@dataclass(frozen=True, slots=True, eq=False)
class StoredArray:
    """One array of an entry: indexing reads what is asked for.

    ``stored``: type in the file; ``dtype``: type of what indexing gives. ``offset``: first byte of the voxels.
    """

    files: OpenArrays = field(repr=False)
    path: Path
    format: Format
    offset: int
    file_bytes: int
    shape: tuple[int, ...]
    stored: np.dtype[Any]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[index] for index in range(len(self)))

    def raw(self, where: Any) -> NDArray[Any]:
        """What ``where`` selects in the file's own type: memory-mapped, to be copied (npy), or fresh (blosc2)."""
        try:
            array = self.files.get(self)
            if self.format == "npy":
                return np.asarray(array[where])
            with _blosc2_guard:  # its objects serve one thread at a time
                return np.asarray(array[where])
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.path}: cannot be read ({error})", f"remove the folder {self.path.parent}: it is written anew"
            ) from error

    def __getitem__(self, where: Any) -> NDArray[Any]:
        return self.raw(where).astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        if self.format == "npy" and copy is not False:  # read, not mapped: no page of it stays in memory twice
            try:
                array = np.fromfile(self.path, self.stored, self.size, offset=self.offset).reshape(self.shape)
            except (OSError, ValueError) as error:
                raise UserError(f"{self.path}: cannot be read ({error})", "was it removed meanwhile?") from error
        else:
            array = self.raw(...)
        return array.astype(self.dtype if dtype is None else dtype, copy=False)


_blosc2_guard = threading.Lock()
