"""The table of cases on disk, read back as it was written: same text, same bits of every number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

CASES_FILE = "cases.csv"
TEXT = ("case_id", "patient_id", "site", "class", "target", "predicted", "empty")  # columns that are no numbers
WHOLE = ("fold", "repeat")


def write_cases(table: pd.DataFrame, path: Path) -> None:
    """Write the table, whole or not at all; what is missing is an empty field."""
    partial = path.with_name(f".{path.name}.partial")
    table.to_csv(partial, index=False)
    partial.replace(path)


def read_cases(path: Path) -> pd.DataFrame:
    """Read a table that ``write_cases`` wrote. A patient ``007`` or ``NA`` stays text."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    columns = {}
    for name in table.columns:
        values = table[name]
        if name in TEXT:
            columns[name] = pd.Series([value or None for value in values], dtype=object)
        elif name in WHOLE:
            columns[name] = values.astype(np.int64)
        else:
            columns[name] = pd.Series([float(value) if value else np.nan for value in values], dtype=np.float64)
    return pd.DataFrame(columns)
