"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that ask for real data carry the marker ``data``."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """``real_data(name)``: the folder of one real data set; the test is skipped where it is absent."""
    folder = Path(os.environ.get("PIPELINE_TEST_DATA", CHECKOUT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).is_dir():
            pytest.skip(f"no {folder / name}")
        return folder / name

    return find
