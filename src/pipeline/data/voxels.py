"""What an array of voxels must offer, in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Voxels(Protocol):
    """An ndarray, or an array of the store of which only what is indexed is read.

    ``voxels[slices]`` gives an ndarray; ``np.array(voxels)`` reads all of it into fresh memory.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that indexing gives."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __getitem__(self, where: Any, /) -> Any: ...

    def __array__(self, dtype: Any = ..., /, *, copy: bool | None = ...) -> NDArray[Any]: ...
