"""The pages of a TIFF file as one stack, found whole before a pixel is read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.image_io.image import DAMAGED, ImageError, require_plausible, require_regular

SLICES = "ZIQT"  # axes that are taken for slices: depth, pages, unknown, time
LARGEST_TILE = 1 << 24  # pixels of a tile that may be larger than its image
MOST_PAGES = 1 << 16
ORIENTATION = 274
AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Stack:
    """One series of pages: ``axes`` are letters of tifffile without those of length 1 that stand for nothing."""

    tif: Any
    series: Any
    axes: str
    shape: tuple[int, ...]

    def size(self, letters: str) -> int:
        """Product of the lengths of some axes."""
        return int(np.prod([size for axis, size in zip(self.axes, self.shape, strict=True) if axis in letters] or [1]))

    @property
    def page(self) -> Any:
        """The first page."""
        return self.series.keyframe

    @property
    def volume(self) -> bool:
        """Whether the pages are slices."""
        return self.size(SLICES) > 1

    @property
    def simple(self) -> bool:
        """One page of 8 bits or fewer: Pillow knows palettes and colour spaces."""
        return self.axes in ("YX", "YXS") and self.page.bitspersample <= 8


@contextmanager
def opened(path: Path) -> Iterator[Stack]:
    require_regular(path)
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would print stands in the errors here
    try:
        tif = tifffile.TiffFile(path, _multifile=False)  # an OME header may name other files
    except DAMAGED as error:
        raise ImageError(path, f"not a TIFF that can be read ({error})", AGAIN) from None
    with tif:
        try:
            _require_chain(path, tif)
            stack = _stack(path, tif)
            _require_whole(path, stack)
        except DAMAGED as error:
            raise ImageError(path, f"damaged: its pages cannot be read ({error})", AGAIN) from None
        yield stack


def _stack(path: Path, tif: Any) -> Stack:
    pages = len(tif.pages)
    if len(tif.series) != 1:
        raise ImageError(
            path, f"has {pages} pages of {len(tif.series)} different shapes or types", "save one stack, or single pages"
        )
    series = tif.series[0]
    kept = [(axis, size) for axis, size in zip(series.axes, series.shape, strict=True) if size > 1 or axis in "YX"]
    stack = Stack(tif, series, "".join(axis for axis, _ in kept), tuple(size for _, size in kept))
    unknown = [axis for axis in stack.axes if axis not in "YXCS" + SLICES]
    if (
        min(stack.shape) < 1
        or unknown
        or sum(axis in SLICES for axis in stack.axes) > 1
        or sorted(set(stack.axes)) != sorted(stack.axes)
    ):
        raise ImageError(path, f"its axes {stack.axes} {stack.shape} are not those of a 2D or 3D image")
    turned = stack.page.tags.get(ORIENTATION)
    if turned is not None and turned.value != 1:
        raise ImageError(path, f"declares a turned picture (orientation {turned.value})", "save it upright")
    return stack


def _require_chain(path: Path, tif: Any) -> None:
    """Every page's directory names the next one: a chain that breaks is a truncated file, which tifffile shortens."""
    form, file = tif.tiff, tif.filehandle
    size = file.size
    file.seek(8 if form.version == 43 else 4)
    seen: set[int] = set()
    while True:
        offset = int.from_bytes(file.read(form.offsetsize), "little" if form.byteorder == "<" else "big")
        if offset == 0:
            return
        if offset in seen or offset + form.tagnosize > size:
            raise ImageError(path, "truncated or corrupt: its chain of pages is broken", AGAIN)
        seen.add(offset)
        if len(seen) > MOST_PAGES:
            raise ImageError(path, f"has more than {MOST_PAGES:,} pages")
        file.seek(offset)
        tags = int.from_bytes(file.read(form.tagnosize), "little" if form.byteorder == "<" else "big")
        end = offset + form.tagnosize + tags * form.tagsize
        if end + form.offsetsize > size:
            raise ImageError(path, "truncated: a page's directory ends beyond the file", AGAIN)
        file.seek(end)


def _require_whole(path: Path, stack: Stack) -> None:
    """Every piece of every page lies inside the file, and none is much larger than what it may hold."""
    size = path.stat().st_size
    page = stack.page
    voxels = int(np.prod(stack.shape))
    require_plausible(path, voxels * page.bitspersample // 8, size, compressed=page.compression != 1)
    chunk = int(np.prod(page.chunks))
    if chunk > max(LARGEST_TILE, 2 * int(np.prod(page.shape))):
        raise ImageError(path, f"declares tiles of {chunk:,} pixels in pages of {page.shape}")
    if stack.series.dataoffset is not None:
        pieces = [(stack.series.dataoffset, voxels * page.bitspersample // 8)]
    else:
        pages = list(stack.series.pages)
        if any(one is None for one in pages):
            raise ImageError(path, "truncated: some of its pages are missing", AGAIN)
        pieces = [piece for one in pages for piece in zip(one.dataoffsets, one.databytecounts, strict=True)]
        if len(pieces) < len(pages):
            raise ImageError(path, "damaged: some of its pages have no pixels", AGAIN)
    if any(offset <= 0 or count <= 0 or offset + count > size for offset, count in pieces):
        raise ImageError(path, "truncated: pixels lie beyond the end of the file, or are left out", AGAIN)
