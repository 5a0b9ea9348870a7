"""cases.csv read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.evaluation.cases import read_cases, write_cases


def test_text_stays_text_and_numbers_keep_their_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "case_id": ["007", "NA", "1e5"],
            "patient_id": ["0001", "nan", "None"],
            "fold": [0, 0, 1],
            "repeat": [0, 0, 0],
            "site": [None, "x,y", 'a "b"'],
            "dice": rng.random(3) ** 9,
            "hd95_mm": [np.nan, 1 / 3, np.pi * 1e-300],
        }
    )
    write_cases(table, tmp_path / "cases.csv")
    found = read_cases(tmp_path / "cases.csv")
    assert found.to_dict("list")["case_id"] == ["007", "NA", "1e5"]
    assert found.to_dict("list")["patient_id"] == ["0001", "nan", "None"]
    assert found["site"].tolist() == [None, "x,y", 'a "b"']
    assert found["dice"].to_numpy().tobytes() == table["dice"].to_numpy().tobytes()
    assert found["hd95_mm"][1:].tolist() == table["hd95_mm"][1:].tolist()
    assert np.isnan(found["hd95_mm"][0])
    assert found["fold"].dtype == np.int64
    write_cases(found, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "cases.csv").read_bytes()
