"""How and where the store keeps its entries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["npy", "blosc2"]
ImageType = Literal["float32", "float16", "auto"]


@dataclass(frozen=True)
class StoreSettings:
    """``store`` of the configuration.

    ``format``: npy (memory-mapped, fastest) or blosc2 (compressed in blocks, where disk is short); both give the same
    bits. ``dtype``: float32; auto, the narrowest type that holds every voxel of an image exactly, else float32 (same
    bits); float16, which rounds the preprocessed images to 11 significant bits. ``max_gb``: size (10**9 bytes) above
    which the least recently used entries are removed, None: never. ``workers``: cases preprocessed at once, None: one
    per core.
    """

    format: Format = "npy"
    dtype: ImageType = "float32"
    max_gb: float | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Places:
    """The folders of a store: entries in 256 folders named by the first two digits of their keys, and three more."""

    folder: Path

    @property
    def partial(self) -> Path:
        """Entries that are being written or removed."""
        return self.folder / "partial"

    @property
    def locks(self) -> Path:
        """One file per entry that is being written, locked by its writer."""
        return self.folder / "locks"

    @property
    def users(self) -> Path:
        """One file per process that uses the store, locked by it: the keys of its entries."""
        return self.folder / "users"

    def entry(self, key: str) -> Path:
        """The folder of an entry."""
        return self.folder / key[:2] / key

    def lock(self, key: str) -> Path:
        """The lock of an entry."""
        return self.locks / key
